import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import optuna
import psutil
import pytest
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState, create_trial

from gitdist.errors import StudyError
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger import lease as lease_module
from gitdist.study.ledger.lease import Lease, ProcessIdentity, read_owners
from gitdist.study.ledger.storage import close_storage, open_storage
from tests.processes import forkserver
from tests.waiting import until

PROCESSES = forkserver(__name__, "tests.study.ledger.warm")


@contextmanager
def opened(line: str, paths: StudyPaths) -> Iterator[BaseStorage]:
    storage = open_storage(line, paths)
    try:
        yield storage
    finally:
        close_storage(storage)


@pytest.fixture
def storage(ledger_line, ledger_paths):
    with opened(ledger_line, ledger_paths) as storage:
        yield storage


@pytest.fixture
def other_storage(storage, ledger_line, ledger_paths):
    with opened(ledger_line, ledger_paths) as other:
        yield other


@pytest.fixture
def sqlite(ledger_paths):
    with opened("sqlite", ledger_paths) as storage:
        yield storage


def states(storage: BaseStorage) -> list[str]:
    study = storage.get_study_id_from_name("study.owners")
    return [record.state.name for record in storage.get_all_trials(study)]


def write_record(storage: BaseStorage, age_s: float = 0.0, confirmed: bool = True, **process) -> int:
    """Write a lease record in the form of every ledger, and return its trial id."""
    study = lease_module.get_or_create_records(storage, "study")
    then = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    elsewhere = {"host": "node-7", "boot": "b007", "pid_namespace": "pid:[4026531836]", "pid": 4242, "started_s": 9.5}
    attributes = {
        "gitdist.owner": {"process": {**elsewhere, **process}, "since": then, "beat_s": 10.0, "lease_s": 60.0},
        "gitdist.beat": then,
        **({"gitdist.holds": then} if confirmed else {}),
    }
    return storage.create_new_trial(study, create_trial(state=TrialState.RUNNING, user_attrs=attributes))


# What other processes do.


def own_until_lost(line, paths, heartbeat_s, lease_s, connection) -> None:
    """Own the study until it is lost, and send the error."""
    with opened(line, paths) as storage:
        lease = Lease.claim(storage, "study", heartbeat_s=heartbeat_s, lease_s=lease_s)
        connection.send("claimed")
        try:
            while True:
                lease.check()
                time.sleep(0.01)
        except StudyError as error:
            connection.send(str(error))


def claim_and_release_for_ever(line, paths, connection) -> None:
    with opened(line, paths) as storage:
        connection.send("begun")
        while True:
            with Lease.claim(storage, "study"):
                pass


def claim_in_rounds(line, paths, take_over, num_rounds, barrier, connection) -> None:
    """Claim one study per round, all processes at once; send which leases run when all have tried, and who owns it."""
    found = []
    with opened(line, paths) as storage:
        for number in range(num_rounds):
            name, lease = f"study{number}", None
            barrier.wait(60)
            try:
                lease = Lease.claim(storage, name, take_over=take_over, heartbeat_s=0.05)
            except StudyError:
                pass
            barrier.wait(60)
            running = [owner.lease_epoch for owner in read_owners(storage, name) if owner.state != "ended"]
            if lease is not None and lease.epoch not in running:
                until(lambda lease=lease: lease.lost)
            found.append((running, lease is not None and not lease.lost))
            barrier.wait(60)
            if lease is not None:
                lease.release()
    connection.send(found)


@contextmanager
def process_of(target, *arguments):
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


# One owner.


@pytest.mark.parametrize("num_taking_over", [0, 2])
def test_of_drivers_that_claim_at_once_exactly_one_owns_the_study(ledger_line, ledger_paths, num_taking_over):
    num_rounds, barrier = 5, PROCESSES.Barrier(4)
    with opened(ledger_line, ledger_paths), ExitStack() as stack:
        started = [
            stack.enter_context(
                process_of(claim_in_rounds, ledger_line, ledger_paths, number < num_taking_over, num_rounds, barrier)
            )
            for number in range(barrier.parties)
        ]
        found = [connection.recv() for _, connection in started]
    for of_round in zip(*found, strict=True):
        assert sum(owns for _, owns in of_round) == 1
        assert all(running == of_round[0][0] and len(running) == 1 for running, _ in of_round)


def test_a_second_driver_is_refused_and_the_error_names_the_owner(storage, other_storage):
    with Lease.claim(storage, "study") as lease:
        with pytest.raises(StudyError, match=rf"pid {os.getpid()} on .* UTC") as caught:
            Lease.claim(other_storage, "study")
        assert caught.value.remedy == "take_over"
        lease.check()
        assert states(storage) == ["RUNNING", "FAIL"]
    assert states(storage) == ["COMPLETE", "FAIL"]


def test_another_study_of_the_same_ledger_is_free(storage, other_storage):
    with Lease.claim(storage, "study"), Lease.claim(other_storage, "other") as lease:
        assert lease.epoch == 0


def test_a_released_study_can_be_claimed_again(storage):
    for number in range(3):
        with Lease.claim(storage, "study") as lease:
            assert lease.epoch == number
    assert states(storage) == ["COMPLETE"] * 3


def test_a_driver_that_fails_releases_the_study(storage):
    with pytest.raises(ZeroDivisionError), Lease.claim(storage, "study"):
        raise ZeroDivisionError
    with Lease.claim(storage, "study") as lease:
        lease.check()


# Take-over.


def test_a_killed_driver_is_taken_over_at_once(ledger_line, storage, ledger_paths):
    with process_of(own_until_lost, ledger_line, ledger_paths, 10.0, 3600.0) as (process, connection):
        assert connection.recv() == "claimed"
        with pytest.raises(StudyError, match=f"pid {process.pid} "):
            Lease.claim(storage, "study")
        process.kill()
        process.join()
        with Lease.claim(storage, "study") as lease:
            lease.check()
            assert states(storage) == ["FAIL", "FAIL", "RUNNING"]


def test_a_claimer_killed_at_any_moment_does_not_block_the_next(ledger_line, storage, ledger_paths):
    moments = random.Random(3)
    for _ in range(6):
        with process_of(claim_and_release_for_ever, ledger_line, ledger_paths) as (process, connection):
            assert connection.recv() == "begun"
            time.sleep(moments.uniform(0.0, 0.2))
            process.kill()
            process.join()
            with Lease.claim(storage, "study") as lease:
                lease.check()
    assert "RUNNING" not in states(storage)


def test_a_stopped_driver_is_taken_over_when_its_lease_has_expired_and_then_sees_it(ledger_line, storage, ledger_paths):
    with process_of(own_until_lost, ledger_line, ledger_paths, 1.0, 3.0) as (process, connection):
        assert connection.recv() == "claimed"
        first = read_owners(storage, "study")[0].last_heartbeat
        until(lambda: read_owners(storage, "study")[0].last_heartbeat > first)
        time.sleep(
            0.1
        )  # the heartbeat that has just arrived is over: a writer stopped in the middle blocks the storage
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(StudyError, match="is being run by"):
            Lease.claim(storage, "study")
        until(lambda: read_owners(storage, "study")[0].state == "dead", pause_s=0.1)
        with Lease.claim(storage, "study") as lease:
            os.kill(process.pid, signal.SIGCONT)
            assert f"by pid {os.getpid()} on" in connection.recv()
            lease.check()
        process.join()
        assert states(storage) == ["FAIL", "FAIL", "COMPLETE"]


def test_a_live_driver_is_taken_over_on_demand_and_finds_out(storage, other_storage):
    with Lease.claim(storage, "study", heartbeat_s=0.05) as old:
        with Lease.claim(other_storage, "study", take_over=True) as new:
            until(lambda: old.lost)
            with pytest.raises(StudyError, match=rf"'study' was taken over by pid {os.getpid()} on .* at .* UTC"):
                old.check()
            old.release()
            assert states(storage) == ["FAIL", "RUNNING"]
            new.check()


def test_a_driver_that_was_suspended_asks_the_storage_before_it_continues(storage, other_storage):
    with Lease.claim(storage, "study", heartbeat_s=3600.0, lease_s=0.05) as old:
        time.sleep(0.1)
        with Lease.claim(other_storage, "study"):
            old._last_heartbeat = 0.0  # its own clock says that its thread was stopped
            with pytest.raises(StudyError, match="taken over"):
                old.check()
            assert old.lost


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_driver_of_another_host_is_dead_when_its_lease_has_expired(storage, confirmed):
    write_record(storage, age_s=61, confirmed=confirmed)
    with Lease.claim(storage, "study") as lease:
        assert lease.epoch == 1
        assert states(storage) == ["FAIL", "RUNNING"]


def test_a_driver_of_another_host_that_may_still_live_is_taken_over_on_demand_only(storage):
    write_record(storage, age_s=50)
    with pytest.raises(StudyError, match="pid 4242 on node-7 since"):
        Lease.claim(storage, "study")
    with Lease.claim(storage, "study", take_over=True):
        assert states(storage) == ["FAIL", "FAIL", "RUNNING"]


# Claims that cross.


def test_a_lower_claimer_that_gives_up_leaves_the_study_to_the_next(storage):
    lower = write_record(storage, confirmed=False)
    threading.Timer(0.3, storage.set_trial_state_values, (lower, TrialState.FAIL)).start()
    with Lease.claim(storage, "study") as lease:
        lease.check()
        assert states(storage) == ["FAIL", "RUNNING"]


def test_a_lower_claimer_that_never_decides_is_not_overruled(storage, monkeypatch):
    monkeypatch.setattr(lease_module, "_CLAIM_TIMEOUT_S", 0.1)
    write_record(storage, confirmed=False)
    with pytest.raises(StudyError, match="pid 4242 on node-7"):
        Lease.claim(storage, "study")
    assert states(storage) == ["RUNNING", "FAIL"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_claim_taken_over_before_it_is_confirmed_does_not_succeed(storage, other_storage, monkeypatch, when):
    write = storage.set_trial_user_attr
    rivals = []

    def overtaken(trial_id, key, value) -> None:
        if when == "after":
            write(trial_id, key, value)
        if key == "gitdist.holds":
            rivals.append(Lease.claim(other_storage, "study", take_over=True))
        if when == "before":
            write(trial_id, key, value)

    monkeypatch.setattr(storage, "set_trial_user_attr", overtaken)
    with pytest.raises(StudyError, match="was taken over"):
        Lease.claim(storage, "study")
    (rival,) = rivals
    rival.check()
    rival.release()
    assert states(other_storage) == ["FAIL", "COMPLETE"]


# The heartbeat.


def test_heartbeats_keep_a_short_lease(storage):
    with Lease.claim(storage, "study", heartbeat_s=0.05, lease_s=5.0) as lease:
        seen = [read_owners(storage, "study")[0].last_heartbeat]
        while len(seen) < 5:
            until(lambda: read_owners(storage, "study")[0].last_heartbeat > seen[-1])
            seen.append(read_owners(storage, "study")[0].last_heartbeat)
        lease.check()


def test_an_unreachable_storage_loses_no_lease_and_heartbeats_resume_afterwards(sqlite):
    with Lease.claim(sqlite, "study", heartbeat_s=0.02, lease_s=0.1) as lease:
        last = read_owners(sqlite, "study")[0].last_heartbeat
        rename(sqlite, "trials", "away")
        time.sleep(0.3)
        assert not lease.lost
        lease.check()
        rename(sqlite, "away", "trials")
        until(lambda: read_owners(sqlite, "study")[0].last_heartbeat > last + timedelta(seconds=0.3))
        lease.check()
    assert states(sqlite) == ["COMPLETE"]


def test_a_release_ends_the_thread_and_leaves_no_connection_in_use(sqlite):
    with Lease.claim(sqlite, "study", heartbeat_s=0.01) as quick:
        until(lambda: read_owners(sqlite, "study")[0].last_heartbeat > read_owners(sqlite, "study")[0].since)
    assert not quick._thread.is_alive()
    with Lease.claim(sqlite, "study", heartbeat_s=3600.0) as slow:
        pass
    assert not slow._thread.is_alive()
    sqlite.remove_session()
    assert sqlite.engine.pool.checkedout() == 0


def test_a_release_without_a_storage_is_silent(sqlite):
    with Lease.claim(sqlite, "study"):
        rename(sqlite, "trials", "away")
    rename(sqlite, "away", "trials")
    assert states(sqlite) == ["RUNNING"]


def test_a_broken_storage_is_one_line(sqlite):
    rename(sqlite, "studies", "away")
    for use in (lambda: Lease.claim(sqlite, "study"), lambda: read_owners(sqlite, "study")):
        with pytest.raises(StudyError, match="ledger of study 'study'") as caught:
            use()
        assert "\n" not in str(caught.value)
        assert "no such table" in str(caught.value)


def rename(storage: RDBStorage, table: str, name: str) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"ALTER TABLE {table} RENAME TO {name}"))


# Status.


def test_owners_of_every_state_and_reading_writes_nothing(ledger_line, storage, ledger_paths):
    assert read_owners(storage, "study") == []
    assert storage.get_all_studies() == []
    with Lease.claim(storage, "study"):
        pass
    for age_s in (0, 40, 61):
        write_record(storage, age_s=age_s)
    with process_of(hold_record_of_a_process, ledger_line, ledger_paths) as (process, connection):
        assert connection.recv() == "written"
        assert [owner.state for owner in read_owners(storage, "study")] == ["ended", "live", "unknown", "dead", "live"]
        process.kill()
        process.join()
    before = checksums(ledger_paths.study)
    found = read_owners(storage, "study")
    assert [owner.state for owner in found] == ["ended", "live", "unknown", "dead", "dead"]
    assert [owner.lease_epoch for owner in found] == list(range(5))
    assert (found[1].host, found[1].pid) == ("node-7", 4242)
    assert found[1].since <= found[1].last_heartbeat <= datetime.now(UTC)
    assert found[2].expires_at == found[2].last_heartbeat + timedelta(seconds=60)
    assert checksums(ledger_paths.study) == before


def hold_record_of_a_process(line, paths, connection) -> None:
    with opened(line, paths) as storage:
        lease_module.add_record(storage, lease_module.get_or_create_records(storage, "study"), 10.0, 60.0)
        connection.send("written")
        time.sleep(60)


def checksums(place) -> dict[str, str]:
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in place.iterdir()}


def test_any_optuna_program_can_read_the_lease_records(storage):
    with Lease.claim(storage, "study"):
        pass
    with pytest.raises(StudyError), Lease.claim(storage, "study"):
        Lease.claim(storage, "study")
    study = optuna.load_study(study_name="study.owners", storage=storage)
    copy = optuna.create_study(direction="maximize")
    copy.add_trials(study.trials)
    assert [trial.state.name for trial in copy.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert study.best_value >= 0


# Process identity.


PRINT_OWN = """
import json, sys
from dataclasses import asdict
from gitdist.study.ledger.lease import ProcessIdentity
print(json.dumps(asdict(ProcessIdentity.own())), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child():
    with subprocess.Popen(
        [sys.executable, "-c", PRINT_OWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def identity_of(child: subprocess.Popen) -> ProcessIdentity:
    return ProcessIdentity(**json.loads(child.stdout.readline()))


def test_a_process_has_exited_once_it_ended_and_not_before(child):
    identity = identity_of(child)
    assert identity.pid == child.pid
    assert not identity.has_exited()
    child.kill()
    child.wait()
    assert identity.has_exited()


def test_a_zombie_has_exited(child):
    identity = identity_of(child)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert identity.has_exited()


def test_another_process_with_the_same_id_is_not_the_one_that_exited():
    own = ProcessIdentity.own()
    assert not own.has_exited()
    assert replace(own, started_s=own.started_s - 60).has_exited()


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot": "an earlier one"}, {"pid_namespace": "pid:[1]"}])
def test_processes_of_other_hosts_are_not_known_to_have_exited(child, other):
    identity = identity_of(child)
    child.kill()
    child.wait()
    assert identity.has_exited()
    assert not replace(identity, **other).has_exited()


def test_a_process_that_the_system_hides_has_not_exited(monkeypatch):
    own = ProcessIdentity.own()

    def hidden(pid: int) -> None:  # as under /proc with hidepid
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", hidden)
    assert own.pid == os.getpid()
    assert not own.has_exited()
