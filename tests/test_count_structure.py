from pathlib import Path

import pytest

from tests.count_structure import Structure, report

MODULES = {
    "gitdist/__init__.py": "",
    "gitdist/low.py": "class Shared: ...\ndef read(): ...\ndef _hidden(): ...\n",
    "gitdist/middle.py": "from gitdist import low\nclass Shared: ...\ndef read(): ...\ndef _hidden(): ...\n",
    "gitdist/top/__init__.py": "from gitdist.low import read\nfrom gitdist.top.left import start\n",
    "gitdist/top/left.py": "def start():\n    from gitdist.top import right\n",
    "gitdist/top/right.py": "import gitdist.top.left\nimport gitdist.middle\n",
}


@pytest.fixture
def structure(tmp_path: Path) -> Structure:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Structure.read(tmp_path)


def test_lines_and_modules_are_counted(structure):
    assert structure.lines == 13
    assert len(structure.trees) == 6


def test_imports_name_the_module_at_the_top_and_within_functions(structure):
    assert structure.imports["gitdist.middle"] == {"gitdist.low"}
    assert structure.imports["gitdist.top"] == {"gitdist.low", "gitdist.top.left"}
    assert structure.imports["gitdist.top.left"] == {"gitdist.top.right"}


def test_modules_with_one_importer_are_named_with_it(structure):
    assert structure.with_one_importer() == {
        "gitdist.middle": "gitdist.top.right",
        "gitdist.top.right": "gitdist.top.left",
    }


def test_circles_are_found(structure):
    assert structure.circles() == [["gitdist.top.left", "gitdist.top.right"]]


def test_names_in_several_modules_are_found(structure):
    assert structure.classes_of_one_name() == {"Shared": ["gitdist.low", "gitdist.middle"]}
    assert structure.functions_of_one_name() == {"read": ["gitdist.low", "gitdist.middle"]}


def test_a_module_with_too_many_imports_is_found(tmp_path):
    folder = tmp_path / "gitdist" / "cli"
    folder.mkdir(parents=True)
    for number in range(21):
        (folder / f"m{number}.py").write_text("")
    lines = [f"import gitdist.cli.m{number}\n" for number in range(21)]
    (tmp_path / "gitdist" / "plain.py").write_text("".join(lines[:16]))
    (tmp_path / "gitdist" / "allowed.py").write_text("".join(lines[:15]))
    (folder / "entry.py").write_text("".join(lines[:20]))
    (folder / "all.py").write_text("".join(lines))
    assert Structure.read(tmp_path).too_many_imports() == {"gitdist.plain": 16, "gitdist.cli.all": 21}


def test_the_report_names_what_it_counts(structure):
    lines = list(report(structure))
    assert lines[:2] == ["lines: 13", "modules: 6"]
    assert "  gitdist.middle <- gitdist.top.right" in lines
    assert "  Shared: gitdist.low, gitdist.middle" in lines
