"""Opening the ledger's storage: SQLite on one host, a journal file on a shared disk, PostgreSQL for a team.

Opening creates what is missing. Whoever is killed meanwhile leaves nothing half-made: SQLite is created beside its
place and renamed, a journal is created empty, PostgreSQL's tables appear in whole transactions that the next one goes
on from. Two that open at once take turns: by the study's lock file on one host, by the server's own lock elsewhere.

Opening for reading alone creates and locks nothing, so it does with files that this user or machine cannot write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from gitdist.disk import locked
from gitdist.errors import StudyError, first_line
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.journal import HostLock

_SERVER_LOCK = 0x67697464697374  # "gitdist": held on the server while the tables are created
_CONNECT_S = 10
_BUSY_S = 30  # for which a writer waits for another one's lock on SQLite
_LOCKED = "database is locked"


def open_storage(line: str, paths: StudyPaths) -> BaseStorage:
    """Open the storage that a study file's ``ledger`` line names, creating it if it is not there.

    Args:
        line: ``sqlite``, ``journal`` or ``postgresql://[user@]host[:port]/database``.
        paths: the study's files; its directory exists.

    Raises:
        StudyError: it is no Optuna storage or cannot be reached; the message names the place.
    """
    place = describe_place(line, paths)
    with _opening(place), locked(paths.lock):
        if line == "sqlite":
            return _open_sqlite(paths.ledger)
        if line == "journal":
            return _open_journal(paths.journal)
        with _connected(line, place) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [_SERVER_LOCK])
            return _postgresql(line)


def read_storage(line: str, paths: StudyPaths) -> BaseStorage:
    """Open a storage that ``open_storage`` has created, to read it; nothing is written.

    Raises:
        StudyError: as ``open_storage``.
    """
    place = describe_place(line, paths)
    with _opening(place):
        if line == "sqlite":
            return _sqlite(paths.ledger, created=True)
        if line == "journal":
            return _journal(paths.journal, HostLock(paths.journal))
        with _connected(line, place):
            return _postgresql(line, created=True)


def check_server(line: str) -> None:
    """Connect to the PostgreSQL server that a ``ledger`` line names, and leave again; nothing is created.

    Args:
        line: ``postgresql://[user@]host[:port]/database``.

    Raises:
        StudyError: it cannot be reached; the message names the place.
    """
    with _connected(line, line) as connection:
        connection.execute("SELECT 1")


def close_storage(storage: BaseStorage) -> None:
    """Release the storage's connections."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def describe_place(line: str, paths: StudyPaths) -> str:
    """Return where the storage is, for messages: a file's path, or the server's address."""
    if line == "sqlite":
        return str(paths.ledger)
    return str(paths.journal) if line == "journal" else line


@contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Turn what a storage raises when it is gone or full into one line for the user.

    Raises:
        StudyError: instead of the storage's own exception.
    """
    try:
        yield
    except (StorageInternalError, OSError) as error:
        raise StudyError(
            f"the ledger {place} cannot be read or written any more ({_cause(error)}); "
            "mend that and run the same command again, it goes on where it was"
        ) from error


def _open_sqlite(path: Path) -> RDBStorage:
    if not path.exists():
        made = path.with_suffix(".new")
        for leftover in path.parent.glob(f"{made.name}*"):
            leftover.unlink()
        close_storage(_sqlite(made))
        os.rename(made, path)
    return _sqlite(path)


def _sqlite(path: Path, created: bool = False) -> RDBStorage:
    # What SQLite cannot write it opens for reading; if it can, it takes back what a killed writer left half-done.
    arguments = {"connect_args": {"timeout": _BUSY_S}}
    return RDBStorage(f"sqlite:///{path}", engine_kwargs=arguments, skip_table_creation=created)


def _open_journal(path: Path) -> JournalStorage:
    lock = HostLock(path)
    path.touch()
    lock.acquire()  # cuts off a torn line
    lock.release()
    return _journal(path, lock)


def _journal(path: Path, lock: HostLock) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), lock))


def _postgresql(line: str, created: bool = False) -> RDBStorage:
    url = _address(line).replace("postgresql://", "postgresql+psycopg://", 1)
    arguments = {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_S}}
    return RDBStorage(url, engine_kwargs=arguments, skip_table_creation=created)


@contextmanager
def _opening(place: str) -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # SQLAlchemy, its drivers and Optuna have no common base
        raise StudyError(f"the ledger {place} cannot be opened as an Optuna storage: {_cause(error)}") from error


@contextmanager
def _connected(line: str, place: str) -> Iterator[Any]:
    try:
        import psycopg
    except ImportError:
        raise StudyError(
            f"the ledger {place} needs the package psycopg; install it with `pip install 'gitdist[postgresql]'`"
        ) from None
    try:
        with psycopg.connect(_address(line), autocommit=True, connect_timeout=_CONNECT_S) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise StudyError(
            f"the ledger {place} cannot be reached ({_cause(error)}); "
            "check the `ledger:` line, the server and PGPASSWORD or ~/.pgpass"
        ) from None


def _address(line: str) -> str:
    return "postgresql://" + line.partition("://")[2]


def _cause(error: BaseException) -> str:
    """Return in one line what went wrong underneath; Optuna's own sentence only says that something did."""
    told = first_line(error.__cause__ or error)
    if _LOCKED in told:
        told += ": a process stopped in the middle of writing to it, by Ctrl-Z say; let that go on, or end it"
    return told
