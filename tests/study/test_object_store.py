"""A small study on an S3 server, with a PostgreSQL ledger and an MLflow server: killed, and resumed elsewhere."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from gitdist.store.file_tree import FileTree
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import ObjectStoreResults
from gitdist.study.ledger.storage import close_storage, open_storage
from tests.commands import call, environment, gitdist
from tests.object_store import ObjectStore
from tests.study.monitoring.mlflow.conftest import Runs
from tests.study.monitoring.mlflow.server import Server
from tests.study.small_study import SmallStudy
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SECRET = "hidden-word"  # the object store's


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


class RemoteStudy:
    """The small study on an object store, as seen from a machine: a directory of copies."""

    def __init__(self, results: Path, uri: str, ledger: str, tracking: str, *more: str) -> None:
        self.uri, self.ledger = uri, ledger
        overrides = (f"tracking.uri={tracking}", "stream.keep=true", *more)
        self._run = SmallStudy(results, overrides=overrides, ledger=ledger).command()
        self._run[self._run.index("--results") + 1] = uri

    def start(self, machine: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._run,
            env=environment(GITDIST_MIRROR=machine, **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = call(gitdist(*arguments, "--results", self.uri), GITDIST_MIRROR=machine)
        assert SECRET not in done.stdout + done.stderr
        return done

    def rows(self) -> dict:
        paths = StudyPaths.at(ObjectStoreResults(self.uri), "small")
        paths.pull()
        return SmallStudy(paths.root).rows()

    def states(self, tmp_path: Path) -> list[str]:
        paths = StudyPaths.at(tmp_path, "small")
        paths.create()
        storage = open_storage(self.ledger, paths)
        try:
            return [trial.state.name for trial in optuna.load_study(study_name="small", storage=storage).trials]
        finally:
            close_storage(storage)


@pytest.mark.slow
def test_a_study_killed_and_resumed_on_another_machine_ends_exact(
    tmp_path, object_store: ObjectStore, database, mlflow_server, undisturbed
):
    study = RemoteStudy(tmp_path, object_store.uri, database, mlflow_server.uri)
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    driver, there = study.start(first), FileTree.of_uri(object_store.uri)
    try:
        rows = "small/trials/0000/rows.jsonl"
        until(lambda: driver.poll() is not None or len((there.read(rows) or b"").splitlines()) == 2, 0.1, 300)
        assert driver.poll() is None, driver.communicate()
    finally:
        driver.kill()
        shown = driver.communicate(timeout=60)
    assert SECRET not in shown[0] + shown[1]
    done = study.call(second, "resume", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert study.rows() == undisturbed.rows()
    assert study.states(tmp_path) == ["COMPLETE"] * 3
    assert set(Runs(mlflow_server.uri, "small").statuses().values()) == {"FINISHED"}
    names = object_store.names("small")
    own = Counter(name.rpartition("/")[2].partition("-")[0] for name in names if name.startswith("trials/0001/"))
    own.pop("test.json", None)  # of the trial that is chosen
    assert own == {"attempt": 1, "epoch": 2, "rows.jsonl": 1, "trial.json": 1}
    assert {"study.yaml", "identity", "summary.json", "samples.png", "drivers/0001.json"} <= set(names)
    assert not [name for name in names if SECRET.encode() in (there.read(f"small/{name}") or b"")]

    seen = study.call(third, "status", "small", "--json")
    assert seen.returncode == 0, seen.stderr
    standing = json.loads(seen.stdout)
    assert (standing["state"], standing["counts"]) == ("finished", {"finished": 3})
    assert [trial["epoch"] for trial in standing["trials"]] == [3] * 4
    page = study.call(third, "report", "small")
    assert page.returncode == 0 and f"{object_store.uri}/small/report/index.html" in page.stdout, page.stderr
    assert "report/index.html" in object_store.names("small")
    again = study.call(third, "resume", "small")
    assert again.returncode == 0 and "nothing to do" in again.stdout


@pytest.fixture
def quick(tmp_path, object_store: ObjectStore, database, mlflow_server) -> RemoteStudy:
    """A study without a trained generator, whose trials have twelve epochs."""
    fields = ("generator={kind: identity}", "search.total=2", "trial.epochs=12")
    return RemoteStudy(tmp_path, object_store.uri, database, mlflow_server.uri, *fields)


def wait_for_two_rows(driver: subprocess.Popen[str], uri: str) -> None:
    there, rows = FileTree.of_uri(uri), "small/trials/0000/rows.jsonl"
    until(lambda: driver.poll() is not None or len((there.read(rows) or b"").splitlines()) >= 2, 0.1, 300)
    assert driver.poll() is None, driver.communicate()


def check_ended(study: RemoteStudy, tmp_path: Path) -> None:
    assert {name: [row["epoch"] for row in rows] for name, rows in study.rows().items()} == {
        name: list(range(1, 13)) for name in ("baseline", "0000", "0001")
    }
    assert study.states(tmp_path) == ["COMPLETE"] * 2


@pytest.mark.slow
def test_an_object_store_that_is_away_for_a_while_is_waited_for(tmp_path, object_store: ObjectStore, quick):
    driver = quick.start(str(tmp_path / "mirrors"))
    try:
        wait_for_two_rows(driver, quick.uri)
        object_store.stop()
        time.sleep(30)
        object_store.start()
        shown, errors = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0 and errors == "", shown + errors
    for words in ("cannot be used", "can be used again"):
        assert shown.count(f"the results on {quick.uri} {words}") == 1, shown
    check_ended(quick, tmp_path)


@pytest.mark.slow
def test_an_object_store_that_stays_away_stops_the_study_which_goes_on_later(
    tmp_path, object_store: ObjectStore, quick
):
    driver = quick.start(str(tmp_path / "mirrors"), GITDIST_OUTAGE_S="10")
    try:
        wait_for_two_rows(driver, quick.uri)
        object_store.stop()
        shown, errors = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 2, shown + errors
    assert len(errors.splitlines()) == 1 and "must be reachable and writable" in errors, errors
    assert SECRET not in shown + errors
    object_store.start()
    done = quick.call(str(tmp_path / "mirrors"), "resume", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    check_ended(quick, tmp_path)


def test_services_that_are_files_are_refused_in_one_line(tmp_path, object_store: ObjectStore):
    study = SmallStudy(tmp_path)
    command = study.command()
    command[command.index("--results") + 1] = object_store.uri
    refused = call(command)
    assert refused.returncode == 2
    assert "ledger must be a PostgreSQL server" in refused.stderr and len(refused.stderr.splitlines()) == 1
    refused = call([*command, "--set", "ledger=postgresql://user@127.0.0.1/none"])
    assert refused.returncode == 2
    assert "MLflow must be a server" in refused.stderr and len(refused.stderr.splitlines()) == 1
    own = "postgresql://me@127.0.0.1/mlflow"  # whose artifacts would lie on this machine
    refused = call([*command, "--set", "ledger=postgresql://user@127.0.0.1/none", "--set", f"tracking.uri={own}"])
    assert refused.returncode == 2 and "hunter2" not in refused.stderr
    assert "tracking.uri is 'postgresql://me@127.0.0.1/mlflow'" in refused.stderr
    assert object_store.names() == []
