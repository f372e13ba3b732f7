"""Random damage to the files of a study that has ended: each command works, or one line names what is wrong.

What must hold: exit code 0 or 2, in time; with 2, one line; no traceback; no other file loses a byte.
"""

import json
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.commands import check_command, check_inputs
from tests.study.ended_study import NAME, make_study
from tests.study.faults import content_of, lost_bytes

COMMANDS = (
    ("status", NAME),
    ("status", NAME, "--json"),
    ("report", NAME),
    ("sync", NAME),
    ("store", "ls"),
    ("store", "gc", "--unused-days", "1"),
)
WRITTEN = ("mlflow.db", f"{NAME}/*/per_class.*", f"{NAME}/report/*", "store/locks/*")
VALUES: tuple[Any, ...] = (None, True, -1, 1.5, 1e400, 2**70, "", "[/red]", "\x1b[0m", [], [[1]], {}, {"a": None})


@dataclass(frozen=True)
class Edit:
    """Something done to the file at ``position`` (0..1) of the list of all files."""

    position: float
    kind: str
    where: float = 0.0  # in the file, 0..1
    value: Any = None


def edits() -> st.SearchStrategy[list[Edit]]:
    fraction = st.floats(0, 1, exclude_max=True)
    kinds = st.sampled_from(("truncate", "flip", "overwrite", "delete", "directory", "swap", "json", "json", "repeat"))
    edit = st.builds(Edit, fraction, kinds, fraction, st.sampled_from(VALUES))
    return st.lists(edit, min_size=1, max_size=3)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("ended") / "results"
    make_study(results)
    (results / "store" / "holds" / "1.json").write_text('{"name": "another", "artefacts": ["generator-1"]}')
    return results


def test_random_damage(ended, tmp_path):
    whole = content_of(ended)
    files = sorted(name for name in whole if "/report/" not in name)
    count = 0

    def check(damage: tuple[list[Edit], tuple[str, ...]]) -> None:
        nonlocal count
        count += 1  # each time in another directory: libraries cache by path
        results = tmp_path / f"{count}" / "results"
        shutil.copytree(ended, results)
        for edit in damage[0]:
            apply(edit, [results / name for name in files])
        before = content_of(results)
        check_command(*damage[1], "--results", results, cwd=tmp_path)
        after = content_of(results)
        known = {*whole.values(), *before.values()}  # such content restores a file, or MLflow gets a study's file again
        lost = [name for name in lost_bytes(before, after) if after.get(name) not in known]
        assert not [name for name in lost if not any(fnmatch(name, allowed) for allowed in WRITTEN)], lost
        shutil.rmtree(results.parent)

    check_inputs(st.tuples(edits(), st.sampled_from(COMMANDS)), check, number=10)


def apply(edit: Edit, files: list[Path]) -> None:
    path = files[int(edit.position * len(files))]
    if not path.is_file():
        return  # an earlier edit has taken it
    content = path.read_bytes()
    at = int(edit.where * len(content))
    match edit.kind:
        case "truncate":
            path.write_bytes(content[:at])
        case "flip" if content:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << int(8 * edit.position)]) + content[at + 1 :])
        case "overwrite":
            path.write_bytes(content[:at] + int(edit.position * 2**60).to_bytes(8, "big") + content[at + 8 :])
        case "delete":
            path.unlink()
        case "directory":
            path.unlink()
            path.mkdir()
        case "swap":
            other = files[int(edit.where * len(files))]
            if other.is_file():
                path.write_bytes(other.read_bytes())
                other.write_bytes(content)
        case "json" if path.suffix in (".json", ".jsonl"):
            lines = content.decode(errors="replace").splitlines() if path.suffix == ".jsonl" else [content]
            if lines:
                lines[int(edit.where * len(lines))] = change(lines[int(edit.where * len(lines))], edit)
                path.write_text("\n".join(map(str, lines)) + "\n")
        case "repeat":
            path.write_bytes(content * 2)


def change(text: str | bytes, edit: Edit) -> str:
    """Return a JSON text with one value replaced, wherever it is, or removed if the new one is None."""
    try:
        values = json.loads(text)
    except ValueError:
        return "{"
    inner, names = values, 1
    while isinstance(inner, dict | list) and inner:
        keys: list[Any] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = keys[int(edit.where * 7919 * names) % len(keys)]
        names += 1
        if not isinstance(inner[key], dict | list) or not inner[key] or int(edit.position * 997 * names) % 3 == 0:
            if edit.value is None:
                del inner[key]
            else:
                inner[key] = edit.value
            break
        inner = inner[key]
    return json.dumps(values)
