"""The experiment of a study, found by the study's identity."""

import shutil

import pytest
from mlflow.entities import ViewType

from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.runs_table import table_view
from gitdist.study.monitoring.mlflow.store import find_table_link
from gitdist.study.monitoring.mlflow.sync import StudyRecord, SyncCounts, sync_study
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, TRIAL, Runs, write_rows
from tests.study.monitoring.mlflow.server import Server

NOTHING = SyncCounts(runs_created=0, epochs_added=0, statuses_fixed=0)


@pytest.fixture
def finished(open_tracker, runs):
    """Return the number of the experiment of a study with one finished trial."""
    tracker = open_tracker()
    tracker.trial_ended(TRIAL, Outcome("finished"))
    tracker.close("FINISHED")
    return runs.client.get_experiment_by_name("study").experiment_id


@pytest.mark.parametrize("deleted", [False, True])
def test_a_renamed_experiment_is_found_and_keeps_its_name(open_tracker, runs, finished, deleted):
    before = Runs.contents(runs)
    runs.client.rename_experiment(finished, "my best one")
    if deleted:
        runs.client.delete_experiment(finished)
    tracker = open_tracker()
    tracker.trial_ended(TRIAL, Outcome("finished"))
    tracker.close("FINISHED")
    names = [experiment.name for experiment in runs.client.search_experiments(ViewType.ALL)]
    assert sorted(names) == ["Default", "my best one"]
    runs._study = "my best one"
    assert runs.contents() == before


def test_sync_of_a_renamed_experiment_adds_nothing(paths, runs, finished):
    runs.client.rename_experiment(finished, "renamed")
    record = StudyRecord(identity="one", description=DESCRIPTION, states={TRIAL: ({}, Outcome("finished"))})
    counts = sync_study(paths, tracking_uri(paths, None), record)
    assert (counts.runs_created, counts.epochs_added) == (0, 0)
    assert runs.client.get_experiment_by_name("study") is None


def test_an_experiment_of_gitdist_0_5_is_adopted_by_its_name_and_found_by_its_mark_later(open_tracker, runs, finished):
    runs.client.delete_experiment_tag(finished, "gitdist.identity.one")
    open_tracker().close("FINISHED")
    assert runs.client.get_experiment(finished).tags["gitdist.identity.one"] == "study"
    runs.client.rename_experiment(finished, "renamed")
    open_tracker().close("FINISHED")
    assert runs.client.get_experiment_by_name("study") is None


def test_a_new_study_beside_a_renamed_one_of_its_name_gets_an_experiment_of_its_own(open_tracker, runs, finished):
    runs.client.rename_experiment(finished, "old")
    open_tracker("two").close("FINISHED")
    assert set(runs.statuses()) == {"study"} and set(Runs(runs.client.tracking_uri, "old").statuses()) == {"study", "7"}


def test_studies_of_one_name_share_an_experiment_of_a_server_whatever_its_name(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    server = Server(tmp_path)
    server.start()
    try:
        for name in ("study", "renamed"):
            for identity in ("one", "two"):
                paths = StudyPaths.at(tmp_path / identity, "study")
                paths.create()
                write_rows(paths, TRIAL, 2)
                tracker = Tracker(paths, server.uri, identity, DESCRIPTION, print)
                tracker.trial_ended(TRIAL, Outcome("finished"))
                tracker.close("FINISHED")
                view = table_view(DESCRIPTION.spec)
                link = find_table_link(paths, server.uri, server.uri, identity, view)
                assert link is not None and link.startswith(f"{server.uri}/#/experiments/")
                assert tracker.table_link() == link
            runs = Runs(server.uri, name)
            keys = sorted((run.data.tags["hash.identity"], run.data.tags["gitdist.role"]) for run in runs.all())
            assert keys == [(identity, role) for identity in ("one", "two") for role in ("study", "trial")]
            if name == "study":
                number = runs.client.get_experiment_by_name("study").experiment_id
                runs.client.rename_experiment(number, "renamed")
        assert len(runs.client.search_experiments()) == 2  # and the default one
    finally:
        server.kill()
