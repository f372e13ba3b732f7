import builtins
import os
import sqlite3
import threading
import time
from contextlib import closing

import optuna
import pytest

from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger import storage as storages
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.storage import HostLock, close_storage, describe_storage, open_storage
from tests.processes import forkserver
from tests.study.ledger.ledger_campaign import hold_journal, open_and_add

PROCESSES = forkserver("tests.study.ledger.ledger_campaign", "tests.study.ledger.warm")


@pytest.fixture
def paths(ledger_paths) -> StudyPaths:
    return ledger_paths


def add_trial(storage, study_name: str = "study") -> None:
    study = optuna.create_study(storage=storage, study_name=study_name, load_if_exists=True)
    study.add_trial(optuna.trial.create_trial(value=1.0))


def count_trials(line: str, paths: StudyPaths) -> int:
    storage = open_storage(line, paths)
    try:
        return len(optuna.load_study(storage=storage, study_name="study").trials)
    finally:
        close_storage(storage)


def test_what_was_written_is_there_when_it_is_opened_again(ledger_line, paths):
    for _ in range(2):
        storage = open_storage(ledger_line, paths)
        add_trial(storage)
        close_storage(storage)
    assert count_trials(ledger_line, paths) == 2


def test_processes_that_open_a_new_storage_at_once_all_succeed(ledger_line, paths):
    open_at_once(ledger_line, [paths] * 4)
    assert count_trials(ledger_line, paths) == 4


def test_hosts_that_open_a_new_database_at_once_all_succeed(database, tmp_path):
    hosts = [StudyPaths.at(tmp_path / str(host), "study") for host in range(4)]  # they share no lock file
    for paths in hosts:
        paths.create()
    open_at_once(database, hosts)
    assert count_trials(database, hosts[0]) == 4


def open_at_once(line: str, places: list[StudyPaths]) -> None:
    """Open a storage and add a trial, from a process for each of ``places``."""
    barrier, counts = PROCESSES.Barrier(len(places)), PROCESSES.Queue()
    opening = [PROCESSES.Process(target=open_and_add, args=(paths, line, barrier, counts)) for paths in places]
    for process in opening:
        process.start()
    try:
        assert [counts.get(timeout=60) for _ in opening] == ["opened"] * len(places)
    finally:
        for process in opening:
            process.join()


def test_a_creation_of_sqlite_that_was_killed_leaves_nothing_in_its_place(paths):
    paths.ledger.with_suffix(".new").write_text("half a database")
    paths.ledger.with_suffix(".new-journal").write_text("its rollback journal")
    storage = open_storage("sqlite", paths)
    close_storage(storage)
    assert sorted(path.name for path in paths.study.glob("ledger*")) == ["ledger.db"]


@pytest.mark.parametrize("keep", [0, 1, 20, -1])
def test_a_torn_last_line_of_the_journal_is_cut_off(paths, keep):
    storage = open_storage("journal", paths)
    add_trial(storage)
    path = paths.study / "ledger.journal"
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:keep])
    assert count_trials("journal", paths) == 1
    assert path.read_bytes() == whole


def test_a_writer_cuts_off_the_line_that_another_one_tore_after_it_opened(paths):
    storage = open_storage("journal", paths)
    add_trial(storage)
    with open(paths.study / "ledger.journal", "ab") as file:
        file.write(b'{"op_code": 4, "torn')
    add_trial(storage)
    assert count_trials("journal", paths) == 2


def test_the_lock_of_a_killed_writer_of_this_host_blocks_nobody(paths):
    open_storage("journal", paths)
    held = PROCESSES.Event()
    holder = PROCESSES.Process(target=hold_journal, args=(paths.study / "ledger.journal", held))
    holder.start()
    assert held.wait(120)
    lock = paths.study / "ledger.journal.lock"
    assert lock.is_symlink()
    holder.kill()
    holder.join()
    assert lock.is_symlink()
    done = threading.Event()

    def write() -> None:
        add_trial(open_storage("journal", paths))
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(20), "it waits for Optuna's 30 s"
    assert not lock.is_symlink()


def test_a_live_writer_of_this_host_is_waited_for(paths):
    open_storage("journal", paths)
    first, second = HostLock(paths.study / "ledger.journal"), HostLock(paths.study / "ledger.journal")
    order = []

    def wait_and_take() -> None:
        second.acquire()
        order.append("second")
        second.release()

    first.acquire()
    waiting = threading.Thread(target=wait_and_take)
    waiting.start()
    time.sleep(0.2)
    order.append("first")
    first.release()
    waiting.join()
    assert order == ["first", "second"]


def test_a_lock_lost_to_another_host_raises(paths):
    open_storage("journal", paths)
    lock = HostLock(paths.study / "ledger.journal")
    lock.acquire()
    os.unlink(paths.study / "ledger.journal.lock")
    with pytest.raises(OSError, match="lost to another host"):
        lock.release()


@pytest.mark.parametrize(("line", "name"), [("sqlite", "ledger.db"), ("journal", "ledger.journal")])
def test_a_file_that_is_no_ledger_is_refused_by_name(paths, line, name):
    (paths.study / name).write_text("no database, but long enough to be taken for one\n" * 10)
    with pytest.raises(StudyError) as caught:
        open_storage(line, paths)
    assert str(paths.study / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_is_not_there_or_a_wrong_database_is_named(paths, postgresql):
    for line, words in (
        ("postgresql://gitdist@127.0.0.1:1/none", ["refused", "127.0.0.1:1/none"]),
        (f"{postgresql}/none", ['"none" does not exist', f"{postgresql}/none"]),
    ):
        with pytest.raises(StudyError) as caught:
            open_storage(line, paths)
        message = str(caught.value)
        assert "\n" not in message and all(word in message for word in words), message


def test_a_missing_driver_package_comes_with_its_remedy(paths, monkeypatch):
    real = builtins.__import__

    def without_psycopg(name, *arguments, **options):
        if name == "psycopg":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_psycopg)
    with pytest.raises(StudyError, match=r"pip install 'gitdist\[postgresql\]'"):
        open_storage("postgresql://127.0.0.1/none", paths)


def test_both_forms_of_a_servers_address_mean_the_same(paths, database):
    storage = open_storage(database, paths)
    add_trial(storage)
    close_storage(storage)
    assert count_trials(database.replace("postgresql://", "postgresql+psycopg://"), paths) == 1


def test_the_place_is_named_for_messages(paths):
    assert describe_storage("sqlite", paths) == str(paths.study / "ledger.db")
    assert describe_storage("journal", paths) == str(paths.study / "ledger.journal")
    assert describe_storage("postgresql://host/db", paths) == "postgresql://host/db"


def test_a_writer_that_stopped_in_the_middle_is_named(ledger_paths, monkeypatch):
    monkeypatch.setattr(storages, "_BUSY_S", 0.1)
    close_storage(open_storage("sqlite", ledger_paths))
    for kind in ("IMMEDIATE", "EXCLUSIVE"):
        with closing(sqlite3.connect(ledger_paths.ledger, isolation_level=None)) as writer:
            writer.execute(f"BEGIN {kind}")
            with pytest.raises(StudyError) as caught:
                Ledger.open(ledger_paths, StudySpec(name="study"))
        assert str(ledger_paths.ledger) in str(caught.value) and "Ctrl-Z" in str(caught.value)
