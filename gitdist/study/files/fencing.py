"""Fencing of trial directories: a worker presumed dead cannot write into a trial that another worker trains.

    worker of a killed driver: begin -> token A ......... check: the file has token B -> StaleAttempt, writes no more
    worker of the next driver:             begin -> token B, loads the checkpoint, resumes

A stale worker may write one more checkpoint if it checked just before ``begin``: a valid one of the same training.
The file also holds the lease epoch of the worker's driver, which identifies the trials that run now.

On an object store, the token is stored there too. Rows of a stale attempt may overwrite the next attempt's rows there;
its next row restores them, and lost rows of an ended trial are repaired from its checkpoint.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitdist.disk import disk_errors, remove_temporaries, write_atomic
from gitdist.errors import StoreError
from gitdist.study.files.results import Results

_FILE = "attempt"


class StaleAttempt(Exception):
    """Another process has started the trial again; this one must stop writing."""


@dataclass(frozen=True)
class Attempt:
    """The right to write into a trial's directory, until another attempt begins."""

    directory: Path
    content: bytes  # of the file
    results: Results

    @classmethod
    def begin(cls, directory: Path, lease_epoch: int, results: Results) -> "Attempt":
        """Take over the trial in ``directory``: remove temporary files of killed writers, and fetch its files."""
        attempt = cls(directory, f"{secrets.token_hex(16)} {lease_epoch}".encode(), results)
        file = directory / _FILE
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        write_atomic(file, attempt.content)
        remove_temporaries(directory, keep=file)  # another attempt may be beginning at this moment
        results.push(file)
        results.pull(directory, checkpoints=True)
        return attempt

    def push(self) -> None:
        """Write the trial's files to the object store if the results are there."""
        self.check()
        self.results.push_trial(self.directory)

    @property
    def is_stale(self) -> bool:
        """Whether another attempt is known to have begun."""
        with suppress(StoreError):
            return self._is_superseded()
        return False

    def check(self) -> None:
        """Raise ``StaleAttempt`` if another attempt has begun."""
        if self._is_superseded():
            raise StaleAttempt(f"another process trains the trial in {self.directory}")

    def _is_superseded(self) -> bool:
        current = self.results.read(self.directory / _FILE)
        return current is not None and current != self.content  # if missing, no other attempt claims the trial


def last_lease_epoch(directory: Path) -> int | None:
    """Return the lease epoch of the driver whose worker trained a trial last; None if unknown or fenced off."""
    with suppress(OSError):
        _, _, lease_epoch = (directory / _FILE).read_bytes().partition(b" ")
        return int(lease_epoch) if lease_epoch.isdigit() else None
    return None


def end_attempt(directory: Path, lease_epoch: int, results: Results) -> None:
    """Fence off the worker of this driver from its trial; do nothing if it is another driver's worker."""
    file = directory / _FILE
    results.pull_file(file)
    if last_lease_epoch(directory) == lease_epoch:
        write_atomic(file, secrets.token_hex(16).encode())
        results.push(file)
