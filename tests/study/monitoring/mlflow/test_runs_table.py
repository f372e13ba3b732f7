"""The table of a study's runs in MLflow's UI: what the link opens is stored with the experiment."""

import json

from mlflow.tracking import MlflowClient

from gitdist.spec import Dimension, StudySpec
from gitdist.study.monitoring.mlflow.runs_table import table_links, table_view
from gitdist.study.monitoring.mlflow.store import find_table_link
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION

SERVER = "http://127.0.0.1:5000"


def view_of(experiment, identity: str) -> dict:
    return json.loads(experiment.tags[f"mlflow.sharedViewState.{identity}"])


def test_the_view_shows_the_objectives_and_the_searched_fields_and_the_best_run_first():
    space = {"threshold": {"int": [10, 100]}, "fraction": {"float": [0.1, 0.9]}}
    search = {"objective": {"ekld": "minimize", "balanced_accuracy": "maximize"}, "space": space}
    view = json.loads(table_view(StudySpec(name="study", search=search)))
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`val/ekld`", True)
    columns = view["selectedColumns"]
    assert columns[:4] == [
        "metrics.`val/ekld`",
        "metrics.`test/ekld`",
        "metrics.`val/balanced_accuracy`",
        "metrics.`test/balanced_accuracy`",
    ]
    assert {"params.`threshold`", "params.`fraction`"} < set(columns) and len(columns) == len(set(columns))
    assert view["columnOrder"] == columns and view["columnWidths"].keys() == set(columns)


def test_the_largest_space_fits_into_a_tag_of_mlflow():
    space = {f"randaugment_magnitude_{index}": Dimension(float=(0.0, 1.0)) for index in range(200)}
    spec = StudySpec(name="study")
    search = spec.search.model_copy(update={"space": space})
    assert len(table_view(spec.model_copy(update={"search": search}))) < 5000


def test_the_view_is_stored_once_and_again_if_it_changes(open_tracker, runs, monkeypatch):
    stored = []
    real = MlflowClient.set_experiment_tag
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", lambda *fields: stored.append(fields[2]) or real(*fields))
    for _ in range(2):
        open_tracker().close()
    assert [name for name in stored if "View" in name] == ["mlflow.sharedViewState.one"]
    experiment = runs.client.get_experiment_by_name("study")
    assert view_of(experiment, "one") == json.loads(table_view(DESCRIPTION.spec))


def test_studies_of_one_experiment_show_their_own_runs(open_tracker, runs):
    for identity in ("one", "two"):
        open_tracker(identity).close()
    experiment = runs.client.get_experiment_by_name("study")
    assert view_of(experiment, "two")["searchFilter"] == "tags.`hash.identity` = 'two'"
    found = runs.client.search_runs([experiment.experiment_id], view_of(experiment, "two")["searchFilter"])
    assert len(found) == 1 and len(runs.all()) == 2


def test_a_link_names_a_stored_view_also_of_a_study_that_was_begun_before_views(paths, open_tracker, runs):
    uri, view = tracking_uri(paths, None), table_view(DESCRIPTION.spec)
    assert find_table_link(paths, uri, SERVER, "one", view) is None
    open_tracker().close()
    experiment = runs.client.get_experiment_by_name("study")
    (before,) = table_links(SERVER, [experiment]).values()
    runs.client.delete_experiment_tag(experiment.experiment_id, "mlflow.sharedViewState.one")
    assert find_table_link(paths, uri, SERVER, "one", view) == before
    assert before.startswith(f"{SERVER}/#/experiments/{experiment.experiment_id}/runs?")
    assert before.endswith("viewStateShareKey=one")
    assert view_of(runs.client.get_experiment(experiment.experiment_id), "one") == json.loads(view)


def test_a_store_without_a_server_has_no_link(open_tracker):
    assert open_tracker().table_link() is None
