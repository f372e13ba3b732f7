"""Opens the ledger's storage: SQLite on one host, a journal file on a shared disk, PostgreSQL for a team.

Opening creates what is missing, atomically: SQLite in a temporary file that is renamed, PostgreSQL's tables in
transactions. Processes that open a storage at the same time wait for each other: with the study's lock file on one
host, with a lock on the server otherwise. Opening for reading creates and locks nothing, even for read-only files.

A journal survives writers that are killed while they write:

    writer --host lock (flock, released when its process ends)--> --Optuna's lock file--> cut a torn line off --> append

On each host only the holder of the host lock tries to get the lock file. So a lock file marked with this host was left
by a killed writer and is removed at once. Optuna lets the lock files of other hosts expire (30 s).
"""

import fcntl
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from gitdist.disk import locked
from gitdist.errors import LedgerOutageError, StudyError, first_line
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.integrity import check_journal_file, check_sqlite_file

_SERVER_LOCK = 0x67697464697374  # "gitdist": held on the server while the tables are created
_CONNECT_S = 10
_ANSWER_S = 30.0  # a server that hangs or is cut off would block a reader for ever
_BUSY_S = 30  # that a writer waits for another writer's SQLite lock
_LOCKED = "database is locked"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of the running kernel; containers of a machine share it
_TAIL_BYTES = 1 << 16  # read at once to find the end of the last whole line


def open_storage(ledger: str, paths: StudyPaths) -> BaseStorage:
    """Open the storage that a study's ``ledger`` field names; create it if it is missing.

    Args:
        ledger: ``sqlite``, ``journal`` or ``postgresql://[user@]host[:port]/database``.
        paths: the study's files; its directory exists.
    """
    name = describe_storage(ledger, paths)
    with _opening_errors(name), locked(paths.lock):
        match _kind(ledger):
            case "sqlite":
                check_sqlite_file(paths.ledger)
                return _create_sqlite(paths.ledger)
            case "journal":
                check_journal_file(paths.journal)
                lock = HostLock(paths.journal)
                paths.journal.touch()
                lock.acquire()  # cuts off a torn line
                lock.release()
                return _open_journal(paths.journal)
            case "postgresql":
                with _connected(ledger) as connection:
                    connection.execute("SELECT pg_advisory_lock(%s)", [_SERVER_LOCK])
                    return _open_postgresql(ledger, create=True)


def read_storage(ledger: str, paths: StudyPaths) -> BaseStorage:
    """Open a storage that ``open_storage`` has created, for reading; nothing is written."""
    name = describe_storage(ledger, paths)
    with _opening_errors(name):
        match _kind(ledger):
            case "sqlite":
                check_sqlite_file(paths.ledger)
                return _open_sqlite(paths.ledger, create=False)
            case "journal":
                check_journal_file(paths.journal)
                return _open_journal(paths.journal)
            case "postgresql":
                with _connected(ledger):
                    return _open_postgresql(ledger, create=False)


def open_optuna_study(ledger: str, paths: StudyPaths) -> optuna.Study:
    """Return the study that a storage holds, as Optuna reads it; its storage stays open."""
    storage = read_storage(ledger, paths)
    with storage_errors(describe_storage(ledger, paths)):
        return optuna.load_study(study_name=paths.name, storage=storage)


def enqueue_point(ledger: str, paths: StudyPaths, point: Mapping[str, Any]) -> None:
    """Add a trial with these parameters, which is waiting; any process may, at any time."""
    study = open_optuna_study(ledger, paths)
    try:
        with storage_errors(describe_storage(ledger, paths)):
            study.enqueue_trial(dict(point))
    finally:
        close_storage(study._storage)


def check_server(ledger: str) -> None:
    """Connect to the PostgreSQL server of a ``ledger`` field and disconnect; nothing is created."""
    with _connected(ledger) as connection:
        connection.execute("SELECT 1")


def close_storage(storage: BaseStorage) -> None:
    """Close the storage's connections."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def describe_storage(ledger: str, paths: StudyPaths) -> str:
    """Return the name of a storage for messages: the file's path, or the server's address."""
    match _kind(ledger):
        case "sqlite":
            return str(paths.ledger)
        case "journal":
            return str(paths.journal)
        case "postgresql":
            return ledger


def settle_writes(storage: BaseStorage) -> None:
    """Wait until each write whose answer was lost has been committed or rolled back by the server.

    Raises:
        LedgerOutageError: the server is still away.
    """
    if isinstance(storage, RDBStorage) and storage.engine.name == "postgresql":
        with storage.engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE trials IN SHARE MODE")  # conflicts with each writer's lock


@contextmanager
def storage_errors(name: str) -> Iterator[None]:
    """Turn the exceptions of a lost or full storage into one line.

    Raises:
        StudyError: instead of the storage's own exception.
    """
    try:
        yield
    except (StorageInternalError, OSError) as error:
        raise StudyError(_unusable(name, error)) from error


class HostLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal, preceded by a lock of this host; removes an incomplete line of a killed writer."""

    def __init__(self, journal: Path) -> None:
        """Guard the file ``journal``."""
        super().__init__(str(journal))
        host = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else os.uname().nodename
        self._journal = journal
        self._host_file = Path(f"{journal}.{host}")
        self._lock_target_file = str(self._host_file)
        self._held: BinaryIO | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held = open(self._host_file, "ab")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX)
            os.utime(self._host_file)  # other hosts use its time to decide whether the lock file has expired
            with suppress(FileNotFoundError):  # there is no lock file
                if os.readlink(self._lock_file) == self._lock_target_file:
                    os.unlink(self._lock_file)
            super().acquire()
            _cut_torn_line(self._journal)
        except BaseException:
            self._held.close()
            raise
        return True

    def release(self) -> None:
        """Release the lock.

        Raises:
            OSError: another host has acquired it, because this process was suspended until the lock expired.
        """
        try:
            super().release()
        except RuntimeError as error:
            raise OSError(f"the lock of {self._journal} was lost to another host ({error})") from None
        finally:
            if self._held is not None:
                self._held.close()


def _cut_torn_line(path: Path) -> None:
    """Truncate the file after its last line end."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        whole_bytes = end
        while whole_bytes > 0:
            start = max(0, whole_bytes - _TAIL_BYTES)
            file.seek(start)
            newline = file.read(whole_bytes - start).rfind(b"\n")
            if newline >= 0:
                whole_bytes = start + newline + 1
                break
            whole_bytes = start
        if whole_bytes < end:
            file.truncate(whole_bytes)


def _kind(ledger: str) -> Literal["sqlite", "journal", "postgresql"]:
    if ledger == "sqlite":
        return "sqlite"
    if ledger == "journal":
        return "journal"
    if ledger.partition("://")[0].lower() in ("postgresql", "postgresql+psycopg"):
        return "postgresql"
    raise StudyError(f"ledger must be sqlite, journal or postgresql://..., but it is '{ledger}'")


def _create_sqlite(path: Path) -> RDBStorage:
    if not path.exists():
        draft = path.with_suffix(".new")
        for leftover in path.parent.glob(f"{draft.name}*"):
            leftover.unlink()
        close_storage(_open_sqlite(draft, create=True))
        os.rename(draft, path)
    return _open_sqlite(path, create=True)


def _open_sqlite(path: Path, *, create: bool) -> RDBStorage:
    # SQLite opens a read-only file for reading; in a writable one, it rolls back a killed writer's transaction.
    arguments = {"connect_args": {"timeout": _BUSY_S}}
    return RDBStorage(f"sqlite:///{path}", engine_kwargs=arguments, skip_table_creation=not create)


def _open_journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), HostLock(path)))


def _open_postgresql(ledger: str, *, create: bool) -> RDBStorage:
    from sqlalchemy import event

    address = ledger.partition("://")[2]
    arguments = {"pool_pre_ping": True, "creator": partial(_connect, f"postgresql://{address}")}
    storage = RDBStorage(f"postgresql+psycopg://{address}", engine_kwargs=arguments, skip_table_creation=not create)
    # After an error that it knows, Optuna itself creates a trial again, although the first one may have been committed.
    event.listen(storage.engine, "handle_error", partial(_raise_outage, ledger))
    return storage


def _connect(url: str) -> Any:
    """Return a connection that is closed, with an error, if the server does not answer in time."""
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(_limited(gen), *arguments, **options)
            except TimeoutError as error:
                self.close()
                raise psycopg.OperationalError(str(error)) from None

    return Connection.connect(url, connect_timeout=_CONNECT_S)


def _limited(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run a dialogue with a server, whose steps are at most 0.1 s apart; raise TimeoutError if it takes too long."""
    until = time.monotonic() + _ANSWER_S
    try:
        step = next(steps)
        while True:
            answer = yield step
            if time.monotonic() > until:
                raise TimeoutError(f"no answer within {_ANSWER_S:.0f} s")
            step = steps.send(answer)
    except StopIteration as end:
        return end.value


def _raise_outage(ledger: str, context: Any) -> None:
    """Raise LedgerOutageError in place of an error that the server's outage explains."""
    import psycopg

    error = context.original_exception
    conflict = isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected)
    away = isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction)
    if (away or context.is_disconnect) and not (conflict or context.is_pre_ping):
        raise LedgerOutageError(_unusable(ledger, error)) from error


@contextmanager
def _connected(ledger: str) -> Iterator[Any]:
    try:
        import psycopg
    except ImportError:
        raise StudyError(
            f"the ledger {ledger} needs the package psycopg; install it with `pip install 'gitdist[postgresql]'`"
        ) from None
    url = f"postgresql://{ledger.partition('://')[2]}"
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_S) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise LedgerOutageError(
            f"the ledger {ledger} cannot be reached ({_cause(error)}); "
            "check the `ledger:` field, the server and PGPASSWORD or ~/.pgpass"
        ) from None


@contextmanager
def _opening_errors(name: str) -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except StudyError:
        raise
    except Exception as error:  # SQLAlchemy, its drivers and Optuna have no common base
        raise StudyError(f"the ledger {name} cannot be opened as an Optuna storage: {_cause(error)}") from error


def _unusable(name: str, error: BaseException) -> str:
    return (
        f"the ledger {name} cannot be read or written ({_cause(error)}); fix this, then run the same command again to "
        "resume"
    )


def _cause(error: BaseException) -> str:
    """Return the underlying error in one line; Optuna's own message does not name it."""
    line = first_line(error.__cause__ or error)
    if _LOCKED in line:
        line += ": a process was suspended while it wrote (Ctrl-Z?); resume it or end it"
    return line
