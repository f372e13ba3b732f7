"""A new SQLite file for MLflow, made beside its place and renamed into it: a killed process leaves none half-made."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from gitdist.disk import locked, write_refusal

_LEFTOVERS = ("", "-journal", "-wal", "-shm")


def ensure_database(place: Path, artefacts: Path) -> None:
    """Make MLflow's tables in a new SQLite file at ``place``; an existing file is only looked at.

    Args:
        place: the file.
        artefacts: where experiments without a place of their own keep their artefacts.

    Raises:
        OSError: the directory cannot be written.
        sqlite3.Error: the file is no SQLite database.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(place)):
            if not place.exists():  # another process made it meanwhile
                _make(place, artefacts)
    with closing(sqlite3.connect(f"file:{quote(str(place))}?mode=rw", uri=True, timeout=60)) as connection:
        connection.execute("PRAGMA schema_version")


def is_read_only(place: Path) -> bool:
    """Tell whether the database at ``place`` cannot be written here: its file, or the directory of its journal."""
    return write_refusal(place.parent) is not None or not os.access(place, os.W_OK)


def copy_database(place: Path, directory: Path) -> Path:
    """Copy the database at ``place`` into a directory and return the copy; nothing is written beside the original.

    Raises:
        OSError: a file cannot be read or written.
        sqlite3.Error: the file is no SQLite database.
    """
    copy = directory / place.name
    source = f"file:{quote(str(place))}?mode=ro"
    with closing(sqlite3.connect(source, uri=True, timeout=60)) as old, closing(sqlite3.connect(copy)) as new:
        try:
            old.backup(new)
            return copy
        except sqlite3.OperationalError:  # a killed writer's journal, which SQLite rolls back by writing
            new.close()
    for suffix in _LEFTOVERS:
        file = place.with_name(place.name + suffix)
        if file.exists():
            shutil.copyfile(file, directory / file.name)
    return copy


def lock_of(place: Path) -> Path:
    """Return the file whose lock is held while the database at ``place`` is made or its locations are changed."""
    return place.with_name(f".{place.name}.lock")


def _make(place: Path, artefacts: Path) -> None:
    draft = place.with_name(f".{place.name}.new")
    for suffix in _LEFTOVERS:
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    store: Any = SqlAlchemyStore(f"sqlite:///{draft}", str(artefacts))  # type: ignore[no-untyped-call]
    store.engine.dispose()
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
    os.replace(draft, place)
