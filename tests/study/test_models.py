import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from gitdist.data.dataset import Dataset
from gitdist.errors import StudyError
from gitdist.spec.study import TrackingSpec
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.json_files import ResultOnTest, read_json
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.models import choose_baseline, choose_trial, find_dataset, open_dataset, save_models
from gitdist.study.study import Study
from gitdist.study.study_record import sync_mlflow
from gitdist.study.summary import read_summary
from tests.study.ended_study import NAME, give_weights, make_study

BEST = TrialId("trial", 2)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """An ended study whose checkpoints have weights, for reading."""
    paths = make_study(tmp_path_factory.mktemp("ended"))
    give_weights(paths)
    return paths


@pytest.fixture
def paths(ended: StudyPaths, tmp_path: Path) -> StudyPaths:
    """A copy of the ended study."""
    shutil.copytree(ended.root, tmp_path / "results")
    return StudyPaths.at(tmp_path / "results", NAME)


@pytest.fixture
def study(paths: StudyPaths) -> Iterator[Study]:
    """The copy, opened, with models."""
    with Study.open(paths, load_stored_spec(paths).model_copy(update={"tracking": TrackingSpec()})) as study:
        yield study


def logged_models(paths: StudyPaths) -> dict[str, tuple[str, str]]:
    """Return id and status of the model of each run that has one, by trial; a run must have one at most."""
    client = MlflowClient(f"sqlite:///{paths.tracking_db}")
    experiment = client.get_experiment_by_name(paths.name).experiment_id
    models = client.search_logged_models([experiment])
    trials = {}
    for model in models:
        run = client.get_run(model.source_run_id)
        assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
        trials[run.data.tags.get("gitdist.trial", "baseline")] = (model.model_id, model.status.name)
    assert len(trials) == len(models)
    return trials


def test_the_trials_of_an_ended_study_can_be_chosen(paths, study):
    assert choose_trial(study, None).trial == BEST
    assert choose_trial(study, 0).trial == TrialId("trial", 0)
    assert choose_baseline(study).trial == BASELINE and choose_baseline(study).spec.fraction == 0
    with pytest.raises(StudyError, match="no trial 3"):
        choose_trial(study, 3)
    paths.rows(BEST).unlink()
    with pytest.raises(StudyError, match="lost 2"):
        choose_trial(study, 2)
    assert choose_trial(study, None).trial == TrialId("trial", 1)
    paths.rows(BASELINE).unlink()
    with pytest.raises(StudyError, match="baseline"):
        choose_baseline(study)


def test_no_trial_is_the_best_for_several_objectives_and_none_that_has_not_finished_can_be_chosen(tmp_path):
    paths = make_study(tmp_path, ended=False, search={"objective": ["val/balanced_accuracy", "val/ekld"]})
    with Study.open(paths, load_stored_spec(paths)) as study:
        with pytest.raises(StudyError, match=r"Pareto front \(1\)") as caught:
            choose_trial(study, None)
        assert caught.value.remedy == "choose_trial"
        assert choose_trial(study, 0).trial == TrialId("trial", 0)
        with pytest.raises(StudyError, match="trial 2 .* running"):
            choose_trial(study, 2)


def test_the_data_set_is_found_in_the_store_without_its_source(paths, study):
    found = find_dataset(study)
    assert found is not None and found.fingerprint == study.ledger.get_attr("data")
    (directory,) = (paths.root / "store" / "dataset").glob("[!.]*")
    directory.rename(paths.root / "elsewhere")
    assert find_dataset(study) is None
    assert open_dataset(study).fingerprint == found.fingerprint


def test_sync_saves_and_logs_the_models_of_the_best_trial_and_the_baseline_once(paths, study):
    models, lines = paths.study / "models", list[str]()
    sync_mlflow(study, lines.append)
    first = logged_models(paths)
    assert first.keys() == {"2", "baseline"} and {status for _, status in first.values()} == {"READY"}
    assert [directory.name for directory in sorted(models.iterdir())] == ["0002", "baseline"]
    before = {file: file.stat().st_mtime_ns for file in models.rglob("*")}
    assert save_models(study, open_dataset(study), lines.append) == []
    sync_mlflow(study, lines.append)
    assert logged_models(paths) == first and lines == []
    assert {file: file.stat().st_mtime_ns for file in models.rglob("*")} == before


def test_a_trial_without_weights_is_named_and_the_others_get_their_models(paths, study):
    for file in paths.trial(BEST).glob("*.pt"):
        file.unlink()
    lines: list[str] = []
    assert save_models(study, open_dataset(study), lines.append) == [BASELINE]
    assert len(lines) == 1 and "trial 2" in lines[0]


def test_a_study_logs_its_models_when_it_ends(undisturbed):
    paths = StudyPaths.at(undisturbed.results, undisturbed.name)
    best = read_summary(paths)["best"]["number"]
    models = logged_models(paths)
    assert models.keys() == {str(best), "baseline"} and {status for _, status in models.values()} == {"READY"}
    model = torch.export.load(paths.model(BASELINE) / "data" / "model.pt2").module()
    dataset = Dataset.open(next((undisturbed.results / "store" / "dataset").glob("[!.]*")))
    test = read_json(paths.test(BASELINE), ResultOnTest)
    answers = model(torch.tensor(dataset.test.images)).argmax(1).numpy()
    rates = [(answers[dataset.test.labels == label] == label).mean() for label in range(10)]
    assert np.abs(np.array(rates) - test["accuracy_per_class"]).max() < 0.05  # which bf16 may have rounded


def test_models_can_be_switched_off(paths):
    with Study.open(paths, load_stored_spec(paths)) as study:
        assert not study.spec.tracking.models
        assert save_models(study, open_dataset(study), print) == []
    assert not (paths.study / "models").exists()
