"""A real MLflow server that hangs and is killed in the middle of a trial, and comes back while the study runs."""

import shutil
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gitdist.doctor.services import check_mlflow
from gitdist.errors import StudyError
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.monitoring.mlflow.sync import StudyRecord, sync_study
from gitdist.study.monitoring.mlflow.tracker import Tracker
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, Runs, flush, rows, write_rows
from tests.study.monitoring.mlflow.server import Server
from tests.waiting import until

FIRST, SECOND = TrialId("trial", 0), TrialId("trial", 1)


@dataclass
class Driver:
    """One driver's study, its tracker, and the tracker's warnings."""

    paths: StudyPaths
    warnings: list[str]
    tracker: Tracker

    @classmethod
    def open(cls, results: Path, name: str, uri: str) -> "Driver":
        paths = StudyPaths.at(results, name)
        paths.create()
        warnings: list[str] = []
        return cls(paths, warnings, Tracker(paths, uri, name, DESCRIPTION, warnings.append))


@dataclass
class Story:
    """What the tests look at: three drivers that met the same outage."""

    uri: str
    during: Driver
    from_the_start: Driver
    ended: Driver
    hung_afterwards: bool
    arrived: list[tuple[str, int]]


@pytest.fixture(scope="module")
def story(tmp_path_factory, empty_store) -> Story:
    directory = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, directory / "mlflow.db")
    server = Server(directory)
    server.start()
    opened = []
    environment = pytest.MonkeyPatch()
    environment.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")  # a call to the hanging server never returns
    try:
        during = Driver.open(directory / "results", "during", server.uri)
        opened.append(during)
        write_rows(during.paths, FIRST, 2)
        during.tracker.reconcile({})
        during.tracker.trial_started(FIRST, {"fraction": 0.5})
        assert flush(during.tracker)
        server.hang()
        _continue_without_the_server(during)
        hung, arrived = server.hangs, server.epochs_of_trials()
        server.kill()
        until(lambda: during.warnings)
        from_the_start = Driver.open(directory / "results", "from-the-start", server.uri)
        opened.append(from_the_start)
        _run_trial(from_the_start)
        ended = Driver.open(directory / "results", "ended", server.uri)
        opened.append(ended)
        _run_trial(ended)
        until(lambda: ended.warnings)
        ended.tracker.close("FINISHED", timeout_s=0.1)
        assert not flush(during.tracker, 0.1)
        server.start()
        yield Story(server.uri, during, from_the_start, ended, hung, arrived)
    finally:
        environment.undo()
        for driver in opened:
            driver.tracker.close(timeout_s=0.0)
        server.kill()


def _continue_without_the_server(driver: Driver) -> None:
    """Run two more epochs, the trial's end, and another trial."""
    for num_epochs in (3, 4):
        write_rows(driver.paths, FIRST, num_epochs)
        driver.tracker.epoch_ended(FIRST, rows(num_epochs)[-1])
    write_rows(driver.paths, SECOND, 1)
    driver.tracker.trial_ended(FIRST, Outcome("pruned", 4))
    driver.tracker.trial_started(SECOND, {"fraction": 0.9})
    driver.tracker.epoch_ended(SECOND, rows(1)[-1])


def _run_trial(driver: Driver) -> None:
    write_rows(driver.paths, FIRST, 3)
    driver.tracker.reconcile({SECOND: ({}, None)})
    driver.tracker.trial_started(FIRST, {"fraction": 0.5})
    driver.tracker.epoch_ended(FIRST, rows(3)[-1])
    driver.tracker.trial_ended(FIRST, Outcome("failed", None, "loss became nan"))


@pytest.mark.timeout(120)
def test_what_an_outage_left_out_is_added_when_the_server_is_back(story):
    assert flush(story.during.tracker, 60)
    runs = Runs(story.uri, "during")
    assert runs.statuses() == {"study": "RUNNING", "0": "FINISHED", "1": "RUNNING"}
    for metric in ("train/loss", "val/ekld", "val/balanced_accuracy"):
        assert runs.steps("0", metric) == [1, 2, 3, 4] and runs.steps("1", metric) == [1]
    assert runs.by_key()["0"].data.tags["gitdist.pruned"] == "4"
    assert runs.files("0") == {"rows.jsonl", "per_class.parquet", "per_class.png"}
    first, second = story.during.warnings
    assert first.startswith(f"MLflow at {story.uri} cannot be written (") and "the study continues" in first
    assert second == f"MLflow at {story.uri} is up to date again"


def test_the_drivers_calls_did_not_wait_for_the_server(story):
    """They returned, although a call to the hanging server would have waited for an hour."""
    assert story.hung_afterwards
    assert story.arrived == [("trial 0000", 1), ("trial 0000", 2)]


def test_a_server_that_is_down_from_the_start_is_written_when_it_is_up(story):
    assert flush(story.from_the_start.tracker, 60)
    runs = Runs(story.uri, "from-the-start")
    assert runs.statuses() == {"study": "RUNNING", "0": "FAILED", "1": "KILLED"} and runs.steps("0") == [1, 2, 3]
    assert runs.by_key()["0"].data.tags["gitdist.reason"] == "loss became nan"
    story.from_the_start.tracker.close("FAILED")
    assert runs.statuses() == {"study": "FAILED", "0": "FAILED", "1": "KILLED"}
    assert len(story.from_the_start.warnings) == 2


def test_what_a_driver_could_not_deliver_is_reported_and_synced_later(story):
    paths, warnings = story.ended.paths, story.ended.warnings
    assert len(warnings) == 2
    assert f"MLflow at {story.uri} lacks" in warnings[1] and " 3 runs" in warnings[1]
    assert f"gitdist sync ended --results {paths.results}" in warnings[1]
    runs = Runs(story.uri, "ended")
    assert runs.all() == []
    record = StudyRecord(
        identity="ended", description=DESCRIPTION, states={FIRST: ({"fraction": 0.5}, Outcome("failed", reason="nan"))}
    )
    counts = sync_study(paths, story.uri, record)
    assert (counts.runs_created, counts.epochs_added, counts.statuses_fixed) == (2, 3, 0)
    assert runs.statuses() == {"study": "FAILED", "0": "FAILED"} and runs.steps("0") == [1, 2, 3]
    before = runs.contents()
    counts = sync_study(paths, story.uri, record)
    assert (counts.runs_created, counts.epochs_added, counts.statuses_fixed) == (0, 0, 0)
    assert runs.contents() == before


def test_a_sync_without_a_server_says_so_in_one_line(paths):
    with pytest.raises(StudyError) as caught:
        sync_study(
            paths, "http://me:secret@127.0.0.1:1", StudyRecord(identity="one", description=DESCRIPTION, states={})
        )
    assert "http://me:***@127.0.0.1:1 does not answer" in str(caught.value) and "\n" not in str(caught.value)


class _Answering(BaseHTTPRequestHandler):
    status, body = 200, b"<html>not MLflow</html>"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else self.status)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, *arguments) -> None:
        """Print nothing."""


@pytest.fixture
def answering():
    """Return a function that starts a server which is healthy and answers with one status, and returns its URI."""
    servers = []

    def start(status: int) -> str:
        servers.append(HTTPServer(("127.0.0.1", 0), type("Answering", (_Answering,), {"status": status})))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://me:secret@127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_is_waited_for(open_tracker, answering, status, capfd):
    tracker = open_tracker(uri=answering(status))
    until(lambda: open_tracker.warnings)
    tracker.close(timeout_s=0.1)
    warning, end = open_tracker.warnings
    assert "cannot be written" in warning and " 1 run;" in end
    assert "secret" not in warning + end
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_is_no_store_of_ours_is_refused(open_tracker, answering, status):
    uri = answering(status)
    with pytest.raises(StudyError) as caught:
        open_tracker(uri=uri)
    assert uri.replace("secret", "***") in str(caught.value) and "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 401, 403, 404])
def test_the_doctor_finds_a_server_that_refuses_us(answering, status):
    uri = answering(status)
    found = check_mlflow(uri)
    assert found.state == "problem" and "cannot be used" in found.seen and "secret" not in found.seen
    assert "MLFLOW_TRACKING_USERNAME" in found.remedy and "--allowed-hosts" in found.remedy


def test_the_doctor_finds_a_server_that_answers(story):
    for uri in (story.uri, f"{story.uri}/", story.uri.replace("//", "//ann:hunter2@")):
        found = check_mlflow(uri)
        assert found.state == "ok" and found.seen.endswith("answers") and "hunter2" not in found.seen
