"""Outages of a ledger's server: it is restarted, cut off, read-only, hangs, or loses a commit or its answer."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from gitdist import outage
from gitdist.errors import LedgerOutageError, SpecError, StudyError, StudyLockedError
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger import storage as storages
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from tests.postgresql import PostgresqlServer, postgresql_server
from tests.proxy import Proxy
from tests.study.ledger.ledger_campaign import CAMPAIGN, work
from tests.waiting import until

ACCURACY = CAMPAIGN.search.objectives[0]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server of these tests' own, which they may stop."""
    with postgresql_server() as server:
        yield server


@pytest.fixture
def proxy(server: PostgresqlServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def own_database(server: PostgresqlServer) -> Iterator[str]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE own")
    yield "own"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP DATABASE own WITH (FORCE)")


@pytest.fixture
def paths(ledger_paths, monkeypatch) -> StudyPaths:
    monkeypatch.setattr(outage, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outage, "_LONGEST_PAUSE_S", 0.1)
    return ledger_paths


def url(port: int, database: str) -> str:
    return f"postgresql://gitdist@127.0.0.1:{port}/{database}"


@contextmanager
def driving(paths: StudyPaths, line: str, **lease) -> Iterator[tuple[Ledger, Lease]]:
    """Open the campaign's ledger, own the study, and wait for outages, as a driver does."""
    ledger = Ledger.open(paths, CAMPAIGN.model_copy(update={"ledger": line}))
    try:
        with Lease.claim(ledger.storage, "study", **lease) as owned:
            ledger.wait_for_outages(owned.check)
            yield ledger, owned
    finally:
        ledger.close()


@contextmanager
def later(act: Callable[[], None], delay_s: float = 1.0) -> Iterator[None]:
    timer = threading.Timer(delay_s, act)
    timer.start()
    yield
    timer.join()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == outage.__name__]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list:
    """The campaign's trials, without an outage, in SQLite."""
    paths = StudyPaths.at(tmp_path_factory.mktemp("expected"), "study")
    paths.create()
    ledger = Ledger.open(paths, CAMPAIGN)
    work(ledger, CAMPAIGN)
    trials = ledger.trials()
    ledger.close()
    assert {record.state for record in trials} == {"finished", "pruned"}
    return trials


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_no_commit_that_is_lost_and_none_whose_answer_is_lost_changes_a_study(
    paths, proxy, own_database, expected, seed
):
    draw, counts = random.Random(seed), {"pass": 0, "lose the request": 0, "lose the answer": 0}
    with driving(paths, url(proxy.port, own_database)) as (ledger, _):

        def fate():
            chosen = draw.choices(list(counts), [20, 1, 1])[0]
            counts[chosen] += 1
            return chosen

        proxy.fate = fate
        work(ledger, CAMPAIGN)
        assert ledger.trials() == expected
        proxy.fate = lambda: "pass"
    assert min(counts.values()) >= 5, counts


def test_the_answer_to_each_creation_of_a_trial_may_be_lost(paths, proxy, own_database):
    with driving(paths, url(proxy.port, own_database)) as (ledger, _):
        for number in range(4):
            fates = iter(["pass", "lose the answer"])  # of the read before it, and of the creation
            proxy.fate = lambda fates=fates: next(fates, "pass")
            assert ledger.next_trial().number == number
            assert len(ledger.trials()) == number + 1


def test_failed_trials_are_retried_once_each(paths, proxy, own_database):
    draw = random.Random(0)
    with driving(paths, url(proxy.port, own_database)) as (ledger, _):
        for _ in range(5):
            ledger.fail(ledger.next_trial().number, "why")
        proxy.fate = lambda: draw.choice(["pass", "pass", "lose the answer"])
        assert ledger.retry_failed() == [(number, 5 + number) for number in range(5)]
        assert [record.retry_of for record in ledger.trials()[5:]] == list(range(5))
        assert ledger.retry_failed() == []


def test_a_restart_is_waited_for_with_a_line_at_its_start_and_one_at_its_end(paths, server, own_database, caplog):
    with driving(paths, url(server.port, own_database)) as (ledger, lease):
        record = ledger.next_trial()
        server.stop()
        with later(server.start):
            ledger.finish(record.number, {ACCURACY: 0.5})
        assert [record.state for record in ledger.trials()] == ["finished"]
        lease.check(thorough=True)
        start, end = lines(caplog)
        assert url(server.port, own_database) in start and "refused" in start and "600 s" in start
        assert url(server.port, own_database) in end and "again" in end


def test_a_server_that_takes_no_writes_is_waited_for(paths, server, own_database, caplog):
    def set_read_only(value: str) -> None:
        with psycopg.connect(url(server.port, "postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {own_database} SET default_transaction_read_only = {value}")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [own_database]
            )

    with driving(paths, url(server.port, own_database)) as (ledger, _):
        record = ledger.next_trial()
        set_read_only("on")
        assert ledger.trials()[0].state == "running"  # it can be read
        with later(lambda: set_read_only("off")):
            ledger.finish(record.number, {ACCURACY: 0.5})
        assert ledger.trials()[0].state == "finished"
        assert len(lines(caplog)) == 2 and "read-only" in lines(caplog)[0]


def test_a_server_that_hangs_is_waited_for_and_a_commit_that_arrives_late_counts(
    paths, proxy, own_database, caplog, monkeypatch
):
    monkeypatch.setattr(storages, "_ANSWER_S", 1.0)
    with driving(paths, url(proxy.port, own_database)) as (ledger, _):
        fates = iter(["pass", "hold"])  # of the commit of a read, and of that of the creation
        proxy.fate = lambda: next(fates, "pass")
        with later(proxy.release, 3.0):
            assert ledger.next_trial().number == 0
        assert len(ledger.trials()) == 1
        assert len(lines(caplog)) == 2 and "no answer within" in lines(caplog)[0]


def test_an_outage_longer_than_the_lease_does_not_end_it(paths, proxy, own_database):
    with driving(paths, url(proxy.port, own_database), heartbeat_s=0.1, lease_s=0.5) as (ledger, lease):
        proxy.refuse()
        with later(proxy.accept, 1.5):
            assert ledger.next_trial().number == 0
        lease.check(thorough=True)


def test_a_driver_whose_study_was_taken_over_during_the_outage_writes_nothing(
    paths, proxy, server, own_database, tmp_path
):
    elsewhere = StudyPaths.at(tmp_path / "elsewhere", "study")
    elsewhere.create()
    with driving(paths, url(proxy.port, own_database), heartbeat_s=0.1, lease_s=1.0) as (ledger, _):
        assert ledger.next_trial().number == 0
        proxy.refuse()
        found: list[Exception] = []

        def ask() -> None:
            try:
                ledger.next_trial()
            except StudyError as error:
                found.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: outage._away)
        with driving(elsewhere, url(server.port, own_database), take_over=True) as (other, _):
            proxy.accept()
            asking.join(60)
            assert isinstance(found[0], StudyLockedError)
            assert len(other.trials()) == 1


def test_a_wait_that_was_in_vain_is_not_repeated(paths, proxy, own_database, caplog, monkeypatch):
    monkeypatch.setenv("GITDIST_OUTAGE_S", "0.3")
    with driving(paths, url(proxy.port, own_database)) as (ledger, _):
        proxy.refuse()
        for _ in range(2):
            with pytest.raises(LedgerOutageError) as caught:
                ledger.trials()
            assert url(proxy.port, own_database) in str(caught.value) and "\n" not in str(caught.value)
        assert len(lines(caplog)) == 1
        proxy.accept()
        assert ledger.trials() == []
        proxy.refuse()
        with later(proxy.accept, 0.2):
            assert ledger.trials() == []  # a new outage is waited for
        assert len(lines(caplog)) == 3


def test_a_reader_does_not_wait(paths, proxy, own_database, caplog):
    spec = CAMPAIGN.model_copy(update={"ledger": url(proxy.port, own_database)})
    Ledger.open(paths, spec).close()
    ledger = Ledger.open(paths, spec, read_only=True)
    proxy.refuse()
    with pytest.raises(LedgerOutageError):
        ledger.trials()
    ledger.close()
    assert lines(caplog) == []


@pytest.mark.parametrize("text", ["soon", "nan", "inf", "-1", ""])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(text, monkeypatch):
    monkeypatch.setenv("GITDIST_OUTAGE_S", text)
    with pytest.raises(SpecError, match="GITDIST_OUTAGE_S"):
        outage.Outage("the ledger", StudyError)
