"""Rows files of ended trials made whole again from the trials' checkpoints."""

from pathlib import Path
from typing import Any

from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import RowsFile, parse_rows, read_rows
from gitdist.trial.checkpoint import checkpoints_of, completed_rows


def repair_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a trial that is not running, and write its rows file anew where it is damaged or too short.

    A checkpoint is read only where the file is damaged or ends before the epoch of the newest one.

    Args:
        directory: the trial's; its rows are the newest whole checkpoint's or the file's up to the damage, whichever
            are more.

    Raises:
        DiskError: the disk does not take the new file; the old one stands.
    """
    path = directory / "rows.jsonl"
    found, whole = parse_rows(path)
    rows = _consecutive(found)
    whole = whole and len(rows) == len(found)
    if whole and len(rows) >= checkpoints_of(directory).newest():
        return rows
    completed = completed_rows(directory)
    mended = max(rows, completed, key=len)
    if not whole or len(mended) > len(rows):
        RowsFile(path, mended).close()
    return mended


def repair_trial(paths: StudyPaths, trial: TrialId) -> None:
    """Do ``repair_rows`` for a trial; of a copy on the object store too, with its checkpoints if these are ahead.

    Raises:
        DiskError: as ``repair_rows``.
        StoreError: the object store cannot be reached.
    """
    directory, mirror = paths.trial(trial), paths.mirror
    if mirror is not None and len(read_rows(paths.rows(trial))) < mirror.newest_checkpoint(directory):
        mirror.pull(directory, checkpoints=True)
    if repair_rows(directory):
        paths.publish(paths.rows(trial))


def _consecutive(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows up to the first that is not of the epoch its place says."""
    for index, row in enumerate(rows):
        if row.get("epoch") != index + 1:
            return rows[:index]
    return rows
