"""The errors a user can meet: each is one line with the rule, the value received, its place and the remedy."""

import re
from pathlib import Path


def first_line(error: BaseException) -> str:
    """Return what ``error`` says in one line; its type where it says nothing.

    Of a file that torch refuses to load it says what the file holds: torch's own first line advises to switch
    ``weights_only`` off, which would run the program in the file.
    """
    text = str(error)
    if "weights_only" in text:
        return _refused_by_torch(text)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def _refused_by_torch(text: str) -> str:
    if found := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", text):
        return f"the file holds {found[1]}, which is neither a tensor nor a plain value"
    return "the file is not a pickle of tensors and plain values"


class GitdistError(Exception):
    """Base of every error that is the user's to mend; the command line prints its message and exits with 2."""


class SpecError(GitdistError):
    """A study file, an override or a parameter breaks a rule."""


class DataError(GitdistError):
    """A data source is missing, unreadable or not of the form it claims."""


class StoreError(GitdistError):
    """The results directory or an artefact in it cannot be read or written."""


class DiskError(StoreError):
    """The disk is full, over its quota, read-only or failing; no trial is to blame for that."""


class StreamError(GitdistError):
    """The augmentation stream cannot deliver; it never falls back to unaugmented images."""


class StudyError(GitdistError):
    """A study cannot be started, joined or read."""


class StudyLockedError(StudyError):
    """Another driver owns the study, or has taken it."""


class IncompleteFileError(StudyError):
    """A file of a study lacks a field, or has a value of the wrong type there."""

    def __init__(self, path: Path, field: str, line: int | None = None) -> None:
        """Name the file, the field and, in a file of rows, the line, counted from 1."""
        where = str(path) if line is None else f"{path}, line {line},"
        super().__init__(f"{where} has no valid field '{field}': it was damaged or edited; restore it from a backup")
        self.path, self.field, self.line = path, field, line


class RayUnavailableError(StudyError):
    """Ray cannot be started, or its cluster cannot be reached; no study is to blame for that."""


class TrialFailedError(Exception):
    """A trial ended without a result (a NaN loss, say); the study records the reason and goes on."""
