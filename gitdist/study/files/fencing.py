"""One process's try at a trial, so that a process thought dead cannot write into a trial that another trains by now.

    worker of a killed driver: begin -> token A ......... check: token B stands there -> StaleAttempt, writes no more
    worker of the next driver:             begin -> token B, loads the checkpoint, goes on

A checkpoint that passed the check just before ``begin`` is a whole one of the same computation, so it does no harm.

Beside the token stands the term of the driver whose worker it is, see ``lease``, for those who ask which trials run.

On an object store the token stands there. Rows that passed the check may come over the next attempt's rows there; its
next row brings them back, and what is lost of a trial that has ended is made anew from its checkpoint.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitdist.disk import disk_errors, remove_temporaries, write_atomic
from gitdist.errors import StoreError
from gitdist.study.files.results import Mirror

_FILE = "attempt"


class StaleAttempt(Exception):
    """Another process has begun the trial anew; this one must write nothing more."""


@dataclass(frozen=True)
class Attempt:
    """The right to write into a trial's directory, until another attempt begins."""

    directory: Path
    content: bytes  # of the file
    mirror: Mirror | None = None

    @classmethod
    def begin(cls, directory: Path, term: int, mirror: Mirror | None = None) -> "Attempt":
        """Take the trial in ``directory`` over from whoever had it; what killed writers left unfinished goes.

        Args:
            directory: the trial's.
            term: of the driver.
            mirror: the results that it is a copy of, if any; then all of its files are fetched.

        Raises:
            DiskError: the disk does not take the token.
            StoreError: the object store cannot be reached.
        """
        attempt = cls(directory, f"{secrets.token_hex(16)} {term}".encode(), mirror)
        file = directory / _FILE
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        write_atomic(file, attempt.content)
        remove_temporaries(directory, keep=file)  # yet another attempt may be beginning at this moment
        if mirror is not None:
            mirror.push(file)
            mirror.pull(directory, checkpoints=True)
        return attempt

    def publish(self) -> None:
        """Bring what has been written to the object store, where the directory is a copy.

        Raises:
            StaleAttempt: another attempt has begun.
            StoreError: the object store cannot be reached.
        """
        if self.mirror is not None:
            self.check()
            self.mirror.push_trial(self.directory)

    @property
    def superseded(self) -> bool:
        """Whether another attempt has begun."""
        with suppress(StoreError):
            return self._is_superseded()
        return False

    def check(self) -> None:
        """Return if this is still the trial's last attempt.

        Raises:
            StaleAttempt: another one has begun.
            StoreError: the object store that says so cannot be reached.
        """
        if self._is_superseded():
            raise StaleAttempt(f"another process trains the trial in {self.directory}")

    def _is_superseded(self) -> bool:
        file, found = self.directory / _FILE, None
        if self.mirror is not None:
            found = self.mirror.read(file)
        else:
            with suppress(OSError):
                found = file.read_bytes()
        return found is not None and found != self.content  # without the file nobody else claims the trial


def last_term(directory: Path) -> int | None:
    """Return the term of the driver whose worker had a trial last; None where there was none, or it is not known."""
    with suppress(OSError):
        _, _, term = (directory / _FILE).read_bytes().partition(b" ")
        return int(term) if term.isdigit() else None
    return None


def end_attempt(directory: Path, term: int, mirror: Mirror | None = None) -> None:
    """Keep the worker of a term's driver out of its trial, and note that none has it; another driver's worker goes on.

    Raises:
        DiskError: the disk does not take the note.
        StoreError: the object store cannot be reached.
    """
    file = directory / _FILE
    if mirror is not None:
        mirror.pull_file(file)
    if last_term(directory) == term:
        write_atomic(file, secrets.token_hex(16).encode())
        if mirror is not None:
            mirror.push(file)
