import sys
from pathlib import Path

import pytest

from gitdist.bench.memory import run_watched
from gitdist.bench.study import differing_rows
from gitdist.bench.whole import WholeStudy, powers_of_two
from gitdist.errors import StudyError
from gitdist.study.paths import StudyPaths


def row(epoch: int, ended_at: float, loss: float = 0.5) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train/loss": loss,
        "train_s": 2.0,
        "waiting_s": 1.0,
        "evaluating_s": 0.5,
        "ended_at": ended_at,
    }


@pytest.fixture
def study(tmp_path: Path) -> WholeStudy:
    """Two trials that share their first epoch."""
    rows = {"0000": [row(1, 100.0), row(2, 110.0)], "0001": [row(1, 100.0), row(2, 112.0)]}
    paths = StudyPaths(tmp_path, "shared")
    return WholeStudy(paths=paths, window=(90.0, 120.0), peak_bytes=0, summary={}, rows=rows)


def test_a_shared_epoch_was_trained_once(study):
    assert study.epochs_trained == 3
    assert study.wall_s == 30
    assert sorted(set(study.intervals)) == [(97.5, 100.0), (107.5, 110.0), (109.5, 112.0)]


def test_times_are_no_results(study):
    assert study.results["0001"] == [{"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.5}]


def test_every_row_that_is_not_the_same_counts(study):
    same = study.results
    assert differing_rows(same, same) == 0
    assert differing_rows(same, {**same, "0001": [{"epoch": 1, "train/loss": 0.6}, same["0001"][1]]}) == 1
    assert differing_rows(same, {**same, "0001": same["0001"][:1]}) == 1
    assert differing_rows(same, {"0000": same["0000"]}) == 2


def test_powers_of_two_up_to_a_number():
    assert [powers_of_two(most) for most in (1, 3, 16)] == [[1], [1, 2], [1, 2, 4, 8, 16]]


def test_memory_is_that_of_a_process_and_its_children():
    hold = "import subprocess, sys; x = bytearray(60 << 20); sys.exit(subprocess.call([sys.executable, '-c', INNER]))"
    inner = "import time; x = bytearray(60 << 20); time.sleep(2.5)"
    finished = run_watched([sys.executable, "-c", hold.replace("INNER", repr(inner))], {})
    assert 120 << 20 < finished.peak_bytes < 300 << 20


def test_a_failed_command_is_told_with_its_last_words():
    with pytest.raises(StudyError, match="failed: .*no such thing"):
        run_watched([sys.executable, "-c", "raise SystemExit('there is no such thing')"], {})
