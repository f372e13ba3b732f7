import signal
import subprocess
import sys

import pytest

from gitdist.disk import write_atomic
from gitdist.study.files.fencing import Attempt, StaleAttempt, end_attempt, last_lease_epoch
from gitdist.study.files.results import LocalResults

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from gitdist.disk import write_atomic
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), b"torn")
"""


def test_an_attempt_holds_until_another_begins(tmp_path):
    first = Attempt.begin(tmp_path, 0, LocalResults(tmp_path))
    first.check()
    assert not first.is_stale
    second = Attempt.begin(tmp_path, 0, LocalResults(tmp_path))
    with pytest.raises(StaleAttempt, match=str(tmp_path)):
        first.check()
    second.check()
    assert [file.name for file in tmp_path.iterdir()] == ["attempt"]


def test_an_ended_attempt_is_nobodys_and_another_drivers_goes_on(tmp_path):
    assert last_lease_epoch(tmp_path) is None
    lost = Attempt.begin(tmp_path, 3, LocalResults(tmp_path))
    assert last_lease_epoch(tmp_path) == 3
    end_attempt(tmp_path, 3, LocalResults(tmp_path))
    assert last_lease_epoch(tmp_path) is None and lost.is_stale
    taken = Attempt.begin(tmp_path, 4, LocalResults(tmp_path))
    end_attempt(tmp_path, 3, LocalResults(tmp_path))
    assert last_lease_epoch(tmp_path) == 4 and not taken.is_stale


def test_the_attempt_of_an_earlier_version_has_no_term(tmp_path):
    (tmp_path / "attempt").write_text("0123456789abcdef0123456789abcdef")
    assert last_lease_epoch(tmp_path) is None


def test_without_its_file_nobody_else_claims_the_trial(tmp_path):
    attempt = Attempt.begin(tmp_path, 0, LocalResults(tmp_path))
    (tmp_path / "attempt").unlink()
    attempt.check()


def test_what_killed_writers_left_unfinished_is_gone_and_nothing_else(tmp_path):
    finished = {"rows.jsonl", "checkpoint-000001-abc.pt", ".hidden", "notes.tmp"}
    for name in finished:
        write_atomic(tmp_path / name, b"whole")
    for name in ("rows.jsonl", "per_class.png"):
        done = subprocess.run([sys.executable, "-c", KILLED_WRITER, tmp_path / name], check=False)
        assert done.returncode == -signal.SIGKILL
    beginning = tmp_path / ".attempt.0123456789abcdef.tmp"  # another process's, at this moment
    beginning.touch()
    assert len(list(tmp_path.iterdir())) == len(finished) + 3
    Attempt.begin(tmp_path, 0, LocalResults(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == finished | {"attempt", beginning.name}
    assert (tmp_path / "rows.jsonl").read_bytes() == b"whole"
