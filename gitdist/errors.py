"""The errors that a user can meet: each is one line with the rule, the value received and where it was found."""

from pathlib import Path
from typing import Literal

_LONGEST = 300  # characters of another library's message: some of them quote a whole file

Remedy = Literal[
    "other_disk",
    "other_results",
    "find_study",
    "change_field",
    "fork",
    "fork_stored",
    "fork_or_find",
    "rename",
    "retry",
    "take_over",
    "submit",
    "quote",
    "quote_override",
    "choose_trial",
]


class GitdistError(Exception):
    """An error that the user can fix; the command line prints it and exits with code 2.

    If the remedy is a command or an option of the command line, ``remedy`` names it and ``cli/`` words it with the
    ``facts``.
    """

    remedy: Remedy | None = None

    def __init__(self, message: str, *, remedy: Remedy | None = None, **facts: object) -> None:
        super().__init__(one_line(message))
        self.facts = facts
        if remedy is not None:
            self.remedy = remedy


class SpecError(GitdistError):
    """A study file, an override or a parameter breaks a rule."""


class DataError(GitdistError):
    """A data source is missing, unreadable or not of the form it claims."""


class StoreError(GitdistError):
    """The results directory or an artifact in it cannot be read or written."""


class DiskError(StoreError):
    """The disk is full, over its quota, read-only or failing; no trial is to blame."""

    remedy = "other_disk"


class StreamError(GitdistError):
    """The augmentation stream cannot deliver; it never falls back to unaugmented images."""


class StudyError(GitdistError):
    """A study cannot be started, joined or read."""


class StudyLockedError(StudyError):
    """Another driver owns the study, or has taken it."""


class LedgerOutageError(StudyError):
    """The ledger's server does not answer or takes no writes now, but may later; a write may have arrived or not."""


class DamagedFileError(StudyError):
    """A file of a study was damaged or edited; if ``is_derived``, it follows from other files."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None, is_derived: bool = False) -> None:
        """Name the file and, in a file of lines, the line, counted from 1."""
        where = str(path) if line is None else f"{path}, line {line},"
        remedy = "resume the study, which writes it again" if is_derived else "restore it from a backup"
        super().__init__(f"{where} {problem}: it was damaged or edited; {remedy}")
        self.path, self.line = path, line


class IncompleteFileError(DamagedFileError):
    """A file of a study lacks a field, or has a value of the wrong type there."""

    def __init__(self, path: Path, field: str, line: int | None = None, *, is_derived: bool = False) -> None:
        """Name the file, the field and, in a file of rows, the line, counted from 1."""
        super().__init__(path, f"has no valid field '{field}'", line=line, is_derived=is_derived)
        self.field = field


class RayUnavailableError(StudyError):
    """Ray cannot be started, or its cluster cannot be reached; no study is to blame."""


class TrialFailedError(Exception):
    """A trial ended without a result (a NaN loss, say); the study records the reason and continues."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut if it is very long; its type if there is no message."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def one_line(text: str) -> str:
    """Return text with a backslash escape for each character that cannot be printed in a line.

    Names of files and classes can have line breaks, terminal codes and bytes that are not UTF-8.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
