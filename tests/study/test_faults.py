"""Each fault of a file of a study with each command: the command works, or one line names what is wrong.

All commands run in this process. GITDIST_FAULT_TABLE=FILE writes a table of what was seen:
GITDIST_FAULT_TABLE=faults.md pytest -n 0 -m 'slow or not slow' tests/study/test_faults.py
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tests.fuzz.commands import Outcome, check_command
from tests.study.ended_study import NAME, SPEC, make_study
from tests.study.faults import FAULTS, UNREADABLE, content_of, damage, lost_bytes

COMMANDS = {
    "run": ("run", "study.yaml"),
    "resume": ("resume", NAME),
    "status": ("status", NAME),
    "report": ("report", NAME),
    "sync": ("sync", NAME),
    "store gc": ("store", "gc"),
}
_SAMPLE = 47  # every 47th pair is tested in each run, all of them by hand
_TABLE = os.environ.get("GITDIST_FAULT_TABLE")

# What a command may replace although it refuses to do all that was asked: MLflow has all other runs of the study.
_WRITTEN = ("mlflow.db", f"{NAME}/*/per_class.*", f"{NAME}/report/*")
# The next driver writes these again, without training.
_DERIVED = (
    f"{NAME}/identity",
    f"{NAME}/trials/0002/rows.jsonl",
    f"{NAME}/trials/0002/trial.json",
    f"{NAME}/baseline/rows.jsonl",
    "store/dataset/*",
)
# For these, the next driver trains or evaluates, see ``test_damage.py``.
_TRAINED = {
    f"{NAME}/summary.json",
    f"{NAME}/trials/0002",
    f"{NAME}/trials/0002/test.json",
    f"{NAME}/baseline",
    f"{NAME}/trials",
}


def _pairs() -> Iterator[tuple[str, str, str]]:
    for (file, faults), command in itertools.product(FAULTS.items(), COMMANDS):
        for fault in faults:
            trains = command in ("run", "resume") and file in _TRAINED and fault not in (*UNREADABLE, "a file")
            if not trains:
                yield file, fault, command


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results directory of a study that has ended; for reading."""
    results = tmp_path_factory.mktemp("ended") / "results"
    make_study(results)
    (results / "store" / "holds" / "1.json").write_text('{"name": "another", "artefacts": ["generator-1"]}')
    return results


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[tuple[str, str], dict[str, str]]]:
    """What each fault has led to, by command; written as a table at the end."""
    table: dict[tuple[str, str], dict[str, str]] = {}
    yield table
    if _TABLE:
        lines = [f"| file | fault | {' | '.join(COMMANDS)} |", f"|{'---|' * (len(COMMANDS) + 2)}"]
        for (file, fault), cells in table.items():
            lines.append(f"| {file} | {fault} | {' | '.join(cells.get(name, 'trains') for name in COMMANDS)} |")
        Path(_TABLE).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "fault", "command"),
    [
        pytest.param(*pair, marks=[] if index % _SAMPLE == 0 else [pytest.mark.slow])
        for index, pair in enumerate(_pairs())
    ],
)
def test_a_fault_is_repaired_or_named_and_nothing_is_lost(ended, seen, tmp_path, file, fault, command):
    results = tmp_path / "results"
    shutil.copytree(ended, results)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SPEC))
    damage(results, file, fault)
    before = content_of(results)
    outcome = check_command(*COMMANDS[command], "--results", results, cwd=tmp_path)
    lost = lost_bytes(before, content_of(results))
    seen.setdefault((file, fault), {})[command] = _describe(outcome, lost)
    rebuilt = _DERIVED if outcome.code == 0 and command in ("run", "resume") else ()
    assert not [name for name in lost if not any(fnmatch(name, allowed) for allowed in (*_WRITTEN, *rebuilt))], lost
    if outcome.code == 2:
        name = Path(file).name.partition("*")[0] or Path(file).parent.name
        assert name in outcome.err or NAME in outcome.err, outcome.err


def _describe(outcome: Outcome, lost: dict[str, int]) -> str:
    return f"{'works' if outcome.code == 0 else 'refuses'}, {outcome.code}, {sum(lost.values())}"
