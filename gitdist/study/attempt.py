"""One process's try at a trial, so that a process thought dead cannot write into a trial that another trains by now.

    worker of a killed driver: begin -> token A ......... check: token B stands there -> Superseded, writes no more
    worker of the next driver:             begin -> token B, loads the checkpoint, goes on

A checkpoint that passed the check just before ``begin`` is a whole one of the same computation, so it does no harm.
"""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitdist.disk import sweep, write_atomic

_FILE = "attempt"


class Superseded(Exception):
    """Another process has begun the trial anew; this one must write nothing more."""


@dataclass(frozen=True)
class Attempt:
    """The right to write into a trial's directory, until another attempt begins."""

    directory: Path
    token: str

    @classmethod
    def begin(cls, directory: Path) -> "Attempt":
        """Take the trial in ``directory`` over from whoever had it; what killed writers left unfinished goes.

        Raises:
            DiskTrouble: the disk does not take the token.
        """
        attempt = cls(directory, secrets.token_hex(16))
        token = directory / _FILE
        write_atomic(token, attempt.token.encode())
        sweep(directory, spare=token)  # yet another attempt may be beginning at this moment
        return attempt

    @property
    def superseded(self) -> bool:
        """Whether another attempt has begun."""
        with suppress(OSError):  # without the file nobody else claims the trial
            return (self.directory / _FILE).read_bytes() != self.token.encode()
        return False

    def check(self) -> None:
        """Return if this is still the trial's last attempt.

        Raises:
            Superseded: another one has begun.
        """
        if self.superseded:
            raise Superseded(f"another process trains the trial in {self.directory}")


def last_attempt_s(directory: Path) -> float | None:
    """Return when the last attempt at a trial began, in seconds of the clock; None where there was none."""
    with suppress(FileNotFoundError):
        return (directory / _FILE).stat().st_mtime
    return None
