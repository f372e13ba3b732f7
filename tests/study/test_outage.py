"""The servers of a study, its ledger's and MLflow's, go away in the middle of it and come back."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import call, environment, gitdist
from tests.postgresql import PostgresqlServer, postgresql_server
from tests.study.monitoring.mlflow.conftest import Runs
from tests.study.monitoring.mlflow.server import Server
from tests.study.small_study import SmallStudy, stocked, wait_for_rows
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]


@pytest.fixture
def ledger_server() -> Iterator[PostgresqlServer]:
    with postgresql_server() as server:
        yield server


@pytest.fixture
def mlflow_server(tmp_path: Path, empty_store: Path) -> Iterator[Server]:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def start(study: SmallStudy, log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        return subprocess.Popen(
            study.command(), env=environment(), stdout=file, stderr=file, text=True, start_new_session=True
        )


def ends(study: SmallStudy) -> list[tuple]:
    return [
        (trial.number, trial.state, trial.params, trial.values, trial.intermediate_values) for trial in study.trials()
    ]


@pytest.mark.parametrize("outage_s", [3.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_study_waits_for_both_servers_and_ends_as_if_they_had_never_gone(
    tmp_path, undisturbed, ledger_server, mlflow_server, outage_s
):
    study = stocked(tmp_path / "results", undisturbed, f"tracking.uri={mlflow_server.uri}")
    study, log = replace(study, ledger=ledger_server.url), tmp_path / "log"
    driver = start(study, log)
    try:
        wait_for_rows(study, "trials/0000")
        ledger_server.stop()
        mlflow_server.kill()
        gone_at = time.monotonic()
        for command in ("status", "report", "sync"):
            done = call(gitdist(command, "small", "--results", str(study.results)))
            assert done.returncode == 2 and done.stdout == ""
            assert len(done.stderr.splitlines()) == 1 and ledger_server.url in done.stderr
        until(lambda: "waiting up to" in log.read_text() or driver.poll() is not None)
        time.sleep(max(0.0, gone_at + outage_s - time.monotonic()))
        ledger_server.start()
        mlflow_server.start()
        driver.wait(400)
    finally:
        driver.kill()
    shown = log.read_text()
    assert driver.returncode == 0, shown
    assert shown.count(f"the ledger {ledger_server.url} cannot be used") == 1, shown
    assert shown.count(f"the ledger {ledger_server.url} can be used again") == 1, shown
    assert study.rows() == undisturbed.rows()
    assert ends(study) == ends(undisturbed)
    assert [lease.state.name for lease in study.trials("small.owners")] == ["COMPLETE"]
    runs = Runs(mlflow_server.uri, "small")
    assert set(runs.statuses().values()) == {"FINISHED"}
    assert all(runs.steps(key) == [1, 2, 3] for key in "012")


@pytest.mark.slow
def test_a_driver_that_waits_is_stopped_by_one_signal_and_resumed(tmp_path, undisturbed, ledger_server):
    study = replace(stocked(tmp_path / "results", undisturbed), ledger=ledger_server.url)
    log = tmp_path / "log"
    driver = start(study, log)
    try:
        wait_for_rows(study, "trials/0000")
        ledger_server.stop()
        until(lambda: "waiting up to" in log.read_text() or driver.poll() is not None)
        driver.send_signal(signal.SIGTERM)
        driver.wait(100)
    finally:
        driver.kill()
    shown = log.read_text()
    assert driver.returncode == 130, shown
    assert f"resume with: gitdist resume small --results {study.results}" in shown
    ledger_server.start()
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert study.rows() == undisturbed.rows()
    assert ends(study) == ends(undisturbed)
