import ast
from pathlib import Path

import pytest

from tests.count_structure import Structure, imports_at_run_time

ROOT = Path(__file__).parents[1] / "gitdist"
# Each room may import from those before it in this order, and from itself.
ROOMS = [
    "root",
    "store",
    "networks",
    "balancing",
    "spec",
    "data",
    "generator",
    "stream",
    "trial",
    "export",
    "study",
    "report",
    "doctor",
    "api",
    "cli",
]
LIBRARY_ROOMS = {
    "ray": {
        "stream/client.py",
        "stream/launch.py",
        "stream/reservation.py",
        "stream/router.py",
        "stream/stats_poller.py",
        "study/",
        "doctor/cluster.py",
    },
    "mlflow": {"study/monitoring/mlflow/"},
    "optuna": {"study/ledger/"},
    "psycopg": {"study/ledger/storage.py"},
    "timm": {"networks/libraries.py"},
    "torchvision": {"torchvision_cpu.py"},
    "typer": {"cli/"},
}
FILES = sorted(ROOT.rglob("*.py"))
STRUCTURE = Structure.read(ROOT.parent)


def imported_modules(file: Path) -> set[str]:
    found = set()
    for node in imports_at_run_time(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module:
            assert node.level == 0, f"{file}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "root"


def test_the_tree_is_found():
    assert len(FILES) > 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_downwards(file):
    relative = file.relative_to(ROOT)
    own = relative.parts[0] if len(relative.parts) > 1 else {"__main__.py": "cli"}.get(relative.name, "root")
    for module in imported_modules(file):
        if module.startswith("gitdist."):
            assert ROOMS.index(room_of(module)) <= ROOMS.index(own), f"{relative} imports {module}"


@pytest.mark.parametrize("library", LIBRARY_ROOMS)
def test_a_library_is_imported_in_its_room_only(library):
    users = {
        str(file.relative_to(ROOT))
        for file in FILES
        if any(module.split(".")[0] == library for module in imported_modules(file))
    }
    assert users, f"nobody imports {library}"
    outside = {user for user in users if not any(user.startswith(room) for room in LIBRARY_ROOMS[library])}
    assert not outside


def test_no_module_imports_too_many_others():
    assert STRUCTURE.too_many_imports() == {}


def test_no_modules_import_each_other_in_a_circle():
    assert STRUCTURE.circles() == []


def test_no_two_classes_have_one_name():
    assert STRUCTURE.classes_of_one_name() == {}


def test_public_functions_share_a_name_only_as_one_interface():
    assert STRUCTURE.functions_of_one_name() == {}
