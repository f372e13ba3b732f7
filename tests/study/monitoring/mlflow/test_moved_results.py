"""MLflow's artifact locations after a results directory was moved, copied or mounted elsewhere."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.monitoring.mlflow.database import move_locations
from gitdist.study.monitoring.mlflow.sync import StudyRecord, SyncCounts, log_report, sync_study
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, TRIAL, Runs, flush, write_rows

NOTHING = SyncCounts(runs_created=0, epochs_added=0, statuses_fixed=0)
FILES = {"rows.jsonl", "per_class.parquet", "per_class.png"}
DONE = Outcome("finished")
SECOND = TrialId("trial", 8)


@pytest.fixture
def results(tmp_path, empty_store, monkeypatch) -> Path:
    """Return a results directory with an empty MLflow store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = tmp_path / "former"
    results.mkdir()
    shutil.copy(empty_store, results / "mlflow.db")
    change(results / "mlflow.db", "UPDATE experiments SET artifact_location = ?", f"{results}/mlartifacts/0")
    return results


def drive(results: Path, *trials: TrialId, name: str = "study", identity: str = "one", uri: str | None = None) -> None:
    """Do what a driver does that runs ``trials`` to their ends."""
    paths = StudyPaths.at(results, name)
    paths.create()
    paths.identity.write_text(identity)
    warnings: list[str] = []
    tracker = Tracker(paths, tracking_uri(paths, uri), identity, DESCRIPTION, warnings.append)
    for trial in trials:
        write_rows(paths, trial, 2)
        tracker.trial_started(trial, {})
        tracker.trial_ended(trial, DONE)
    tracker.close("FINISHED")
    assert warnings == []


def change(database: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement, values)


def locations(database: Path) -> list[str]:
    """Return every artifact location of a database but the default experiment's."""
    query = "SELECT artifact_location FROM experiments WHERE experiment_id > 0 UNION SELECT artifact_uri FROM runs"
    with closing(sqlite3.connect(database)) as connection:
        return [location for (location,) in connection.execute(query)]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def runs_of(results: Path, name: str = "study") -> Runs:
    return Runs(f"sqlite:///{results}/mlflow.db", name)


def check_inside(results: Path) -> None:
    found = locations(results / "mlflow.db")
    assert found and all(place.startswith(f"file://{results}/mlartifacts/") for place in found), found


def test_a_moved_results_directory_is_written_where_it_is_now(results, tmp_path):
    drive(results, TRIAL)
    new = results.rename(tmp_path / "a new one")
    drive(new, SECOND)
    paths = StudyPaths.at(new, "study")
    states = {TRIAL: ({}, DONE), SECOND: ({}, DONE)}
    counts = sync_study(
        paths,
        tracking_uri(paths, None),
        StudyRecord(identity="one", description=DESCRIPTION, states=states, num_open=1),
    )
    assert (counts.runs_created, counts.epochs_added) == (0, 0)
    assert not results.exists()
    runs = runs_of(new)
    assert {runs.files("7") == FILES, runs.files("8") == FILES} == {True}
    assert all(place.startswith((new / "mlartifacts" / "study").as_uri()) for place in locations(new / "mlflow.db"))


def test_a_report_is_logged_where_the_results_are_now(results, tmp_path):
    drive(results, TRIAL)
    new = results.rename(tmp_path / "new")
    page = tmp_path / "out" / "index.html"
    page.parent.mkdir()
    page.write_text("page")
    paths = StudyPaths.at(new, "study")
    assert log_report(paths, tracking_uri(paths, None), page.parent, [page])
    assert not results.exists()
    assert [file.read_text() for file in (new / "mlartifacts").rglob("index.html")] == ["page"]


def test_a_copy_leaves_the_original_as_it_is(results, tmp_path):
    drive(results, TRIAL)
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    before = contents(results)
    drive(copy, SECOND)
    assert contents(results) == before
    check_inside(copy)
    check_inside(results)
    assert runs_of(copy).statuses() == {"study": "FINISHED", "7": "FINISHED", "8": "FINISHED"}
    assert runs_of(results).statuses() == {"study": "FINISHED", "7": "FINISHED"}


def test_all_studies_of_a_directory_move_with_it_also_those_of_an_earlier_move(results, tmp_path):
    drive(results, TRIAL, name="study")
    second = results.rename(tmp_path / "second")
    elsewhere = tmp_path / "second" / "mlartifacts"
    client = MlflowClient(f"sqlite:///{second}/mlflow.db")  # gitdist 0.5 left the first study's location as it was
    experiment = client.create_experiment("later", (elsewhere / "later").as_uri())
    client.create_run(experiment, tags={"gitdist.study": "later", "gitdist.identity": "two", "gitdist.role": "study"})
    third = second.rename(tmp_path / "third")
    drive(third, SECOND, name="later", identity="two")
    check_inside(third)
    assert not results.exists() and not second.exists()


def test_experiments_that_a_user_put_elsewhere_stay_there(results, tmp_path):
    drive(results, TRIAL)
    client = MlflowClient(f"sqlite:///{results}/mlflow.db")
    kept = {"own": str(tmp_path / "own" / "mlartifacts" / "own"), "bucket": "s3://bucket/mlartifacts/bucket"}
    for name, place in kept.items():
        client.create_run(client.create_experiment(name, place))
    inside = client.create_experiment("inside", f"{results}/mlartifacts/deep/inside")
    client.create_run(inside)
    new = results.rename(tmp_path / "new")
    drive(new, SECOND)
    client = MlflowClient(f"sqlite:///{new}/mlflow.db")
    for name, place in {**kept, "inside": f"{new}/mlartifacts/deep/inside"}.items():
        experiment = client.get_experiment_by_name(name)
        (run,) = client.search_runs([experiment.experiment_id])
        assert experiment.artifact_location == place and run.info.artifact_uri.startswith(f"{place}/")


def test_a_link_in_place_of_the_artifacts_is_not_followed_into_the_database(results, tmp_path):
    (tmp_path / "large").mkdir()
    (results / "mlartifacts").symlink_to(tmp_path / "large")
    drive(results, TRIAL)
    check_inside(results)
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)  # the link becomes a directory
    before = contents(tmp_path / "large")
    drive(copy, SECOND)
    check_inside(copy)
    assert contents(tmp_path / "large") == before


def test_a_driver_brings_back_what_another_mount_of_the_directory_changed(results, tmp_path):
    paths = StudyPaths.at(results, "study")
    paths.create()
    write_rows(paths, TRIAL, 1)
    warnings: list[str] = []
    tracker = Tracker(paths, tracking_uri(paths, None), "one", DESCRIPTION, warnings.append)
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)
    move_locations(tracking_uri(paths, None), paths.artifacts, tmp_path / "mounted" / "mlartifacts")
    tracker.trial_ended(TRIAL, DONE)
    assert flush(tracker)
    tracker.close("FINISHED")
    assert not (tmp_path / "mounted").exists()
    check_inside(results)
    assert runs_of(results).files("7") == FILES


def move_between_trials(results, uri):
    """Move ``results`` after its first trial; return the new directory and the runs, which have all files."""
    drive(results, TRIAL, uri=uri)
    new = results.rename(results.parent / "new")
    drive(new, SECOND, uri=uri)
    assert not results.exists()
    runs = Runs(uri)
    assert runs.files("7") == runs.files("8") == FILES
    return new, runs


def test_a_database_elsewhere_has_the_files_of_a_moved_study_where_they_are_now(results, tmp_path):
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    shutil.copy(results / "mlflow.db", tmp_path / "elsewhere.db")
    new, runs = move_between_trials(results, uri)
    assert all(place.startswith(f"file://{new}/mlartifacts/study") for place in locations(tmp_path / "elsewhere.db"))


@pytest.mark.parametrize("marked", [True, False])
def test_studies_of_one_name_in_one_database_keep_their_files_apart(results, tmp_path, marked):
    """Without marks it is as gitdist 0.5 left the first one."""
    uri, database = f"sqlite:///{tmp_path}/elsewhere.db", tmp_path / "elsewhere.db"
    shutil.copy(results / "mlflow.db", database)
    drive(results, TRIAL, uri=uri)
    if not marked:
        change(database, "DELETE FROM experiment_tags")
    before = contents(results)
    drive(tmp_path / "other", SECOND, identity="two-of-them", uri=uri)
    assert contents(results) == before
    assert Runs(uri).statuses() == {"study": "FINISHED", "7": "FINISHED"}
    assert Runs(uri, "study-two-of-t").statuses() == {"study": "FINISHED", "8": "FINISHED"}
    drive(results, SECOND, uri=uri)
    drive(tmp_path / "other", TRIAL, identity="two-of-them", uri=uri)
    assert set(Runs(uri).statuses()) == set(Runs(uri, "study-two-of-t").statuses()) == {"study", "7", "8"}
    assert Runs(uri, "study-two-of-t").files("7") == FILES


def test_locations_in_the_results_directory_are_not_changed(results):
    drive(results, TRIAL)
    before = (results / "mlflow.db").read_bytes()
    paths = StudyPaths.at(results, "study")
    record = StudyRecord(identity="one", description=DESCRIPTION, states={TRIAL: ({}, DONE)}, num_open=1)
    sync_study(paths, tracking_uri(paths, None), record)
    before = (results / "mlflow.db").read_bytes()
    assert sync_study(paths, tracking_uri(paths, None), record) == NOTHING
    assert (results / "mlflow.db").read_bytes() == before


def test_a_database_on_a_server_has_the_files_of_a_moved_study_where_they_are_now(results, database):
    uri = database.replace("postgresql:", "postgresql+psycopg:", 1)
    new, runs = move_between_trials(results, uri)
    assert {run.info.artifact_uri.partition("/study/")[0] for run in runs.all()} == {f"file://{new}/mlartifacts"}
