import logging
import os
import re
import shutil

import numpy as np
import optuna
import pytest
import torch
import yaml

import gitdist
from gitdist.api.callbacks import Callback, CallbackError, CallbackObserver
from gitdist.spec import TrialSpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import read_rows
from tests.study.ended_study import EPOCHS, NAME, SPEC, give_weights, make_study


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A study of a baseline and three trials that has ended; its classifiers are untrained."""
    paths = make_study(tmp_path_factory.mktemp("ended"))
    give_weights(paths)
    return paths


@pytest.fixture
def copied(ended, tmp_path):
    """A copy of it, to change."""
    shutil.copytree(ended.root / NAME, tmp_path / NAME)
    return gitdist.load_study(tmp_path / NAME)


def times(directory) -> dict:
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in directory.rglob("*")}


def test_reading_changes_nothing(ended):
    before = times(ended.root)
    study = gitdist.load_study(str(ended.study))
    assert (study.name, study.spec.name, study.status.state, study.notes) == (NAME, NAME, "finished", [])
    study.trials(), study.rows(), study.best.classifier(), study.optuna_study.trials
    assert times(ended.root) == before
    assert eval(repr(study)).name == NAME


def test_a_study_is_found_by_a_relative_path(ended, monkeypatch):
    monkeypatch.chdir(ended.root)
    assert gitdist.load_study(NAME).status.state == gitdist.load_study(f"./{NAME}/").status.state == "finished"


def test_trials_have_a_row_each_with_parameters_objective_and_metrics(ended):
    table = gitdist.load_study(ended.study).trials()
    assert table.index.tolist() == ["baseline", 0, 1, 2] and table.index.name == "trial"
    assert set(table["state"]) == {"finished"} and set(table["epoch"]) == {EPOCHS}
    assert table.loc["baseline", "fraction"] == 0 and table.loc[[0, 1, 2], "fraction"].between(0.2, 0.8).all()
    for name in ("val/balanced_accuracy", "test/balanced_accuracy"):
        assert table[name].tolist() == [0.5, 0.5, 0.6, 0.7]
    assert table["objective/balanced_accuracy"].tolist()[1:] == [0.5, 0.6, 0.7]
    assert table["objective/balanced_accuracy"].isna().tolist() == [True, False, False, False]


def test_no_column_is_named_like_a_searched_field(ended):
    assert not {"state", "reason", "epoch", "feasible"} & {"method", *TrialSpec.model_fields}


def test_rows_have_one_row_a_trial_and_epoch(ended):
    table = gitdist.load_study(ended.study).rows()
    assert table["trial"].tolist() == [label for label in ("baseline", 0, 1, 2) for _ in range(EPOCHS)]
    assert table["epoch"].tolist() == [1, 2] * 4
    expected = [row.to_json() for row in read_rows(ended.rows(TrialId("trial", 2)))]
    assert table[table["trial"] == 2].drop(columns="trial").to_dict("records") == expected


def test_the_best_trial_has_its_parameters_its_spec_and_its_classifier(ended):
    study = gitdist.load_study(ended.study)
    best = study.best
    assert best.number == 2 and best.spec.fraction == best.params["fraction"] == study.trials().loc[2, "fraction"]
    assert best.metrics["test/balanced_accuracy"] == 0.7
    classifier = best.classifier()
    assert isinstance(classifier, torch.nn.Module) and not classifier.training
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    probabilities = classifier(images)
    assert probabilities.shape == (4, 10) and torch.allclose(probabilities.sum(1), torch.ones(4))
    assert not torch.equal(study.trial(0).classifier()(images), probabilities)
    baseline = study.trial("baseline")
    assert (baseline.number, baseline.params, baseline.spec.fraction) == ("baseline", {}, 0.0)


def test_optunas_own_tools_read_the_study(ended):
    study = gitdist.load_study(ended.study).optuna_study
    assert study.best_trial.number == 2 and len(study.trials_dataframe()) == 3


def test_a_point_is_queued_for_the_next_trial(copied):
    copied.enqueue(copied.trials().loc[1, ["fraction"]].to_dict())
    waiting = copied.optuna_study.get_trials(states=[optuna.trial.TrialState.WAITING])
    assert [trial.number for trial in waiting] == [3]
    assert waiting[0].system_attrs["fixed_params"] == {"fraction": copied.trials().loc[1, "fraction"]}
    assert copied.status.state == "interrupted"  # the next run trains it


@pytest.mark.parametrize(
    ("point", "named"),
    [({"fraction": 0.9}, "0.9"), ({"fractoin": 0.5}, "fraction"), ({}, "at least one"), ([0.5], "list")],
)
def test_a_point_outside_the_space_is_refused(ended, point, named):
    before = times(ended.study)
    with pytest.raises(gitdist.GitdistError, match=named):
        gitdist.load_study(ended.study).enqueue(point)
    assert times(ended.study) == before


def test_an_unfinished_study_of_two_objectives_has_no_single_best_trial_and_no_model_of_the_open_one(tmp_path):
    objectives = {"objective": ["val/balanced_accuracy", "val/ekld"]}
    study = gitdist.load_study(make_study(tmp_path, ended=False, search=objectives).study)
    table = study.trials()
    assert table["state"].tolist() == [*["finished"] * 3, "interrupted"]
    assert table.loc[2, "epoch"] == EPOCHS - 1
    for name in ("objective/balanced_accuracy", "objective/ekld"):
        assert table[name].isna().tolist() == [True, False, False, True]
    with pytest.raises(gitdist.GitdistError, match=r"\(1\)"):
        _ = study.best
    with pytest.raises(gitdist.GitdistError, match="running"):
        study.trial(2)
    with pytest.raises(gitdist.GitdistError, match="its number or 'baseline'"):
        study.trial("1")
    assert study.trial(1).number == 1


@pytest.mark.parametrize("path", ["nothing", "no/such/study", "a study", "/"])
def test_a_path_without_a_study_is_one_line(tmp_path, path):
    with pytest.raises(gitdist.GitdistError) as caught:
        gitdist.load_study(tmp_path / path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({**SPEC, "search": {"totl": 3}}, "search"),
        ({**SPEC, "matrix": {"data.version": [0, 1]}}, "2"),
        ("no-such-file.yaml", "no-such-file.yaml"),
        (["quickstart.yaml"], "list"),
        ({**SPEC, "scale": {"small": {}}}, "larger"),
    ],
)
def test_what_is_no_study_is_one_line(tmp_path, spec, named):
    with pytest.raises(gitdist.GitdistError, match=re.escape(named)) as caught:
        gitdist.run(spec, results=tmp_path, scale="larger" if named == "larger" else None)
    assert "\n" not in str(caught.value) and not os.listdir(tmp_path)


@pytest.mark.parametrize(("callbacks", "named"), [([lambda: None], "function"), (Callback(), "a list")])
def test_callbacks_must_be_a_list_of_callbacks(tmp_path, callbacks, named):
    with pytest.raises(gitdist.GitdistError, match=named):
        gitdist.run(SPEC, results=tmp_path, callbacks=callbacks)


def test_numbers_of_numpy_are_numbers(ended, tmp_path):
    shutil.copytree(ended.root, tmp_path / "copy")
    spec = {**SPEC, "search": {**SPEC["search"], "total": np.int64(SPEC["search"]["total"])}}
    assert gitdist.run(spec, results=tmp_path / "copy", progress=False).spec.search.total == SPEC["search"]["total"]


@pytest.mark.parametrize("form", [dict, lambda spec: yaml.safe_dump(spec)])
def test_a_finished_study_is_run_again_without_ray(ended, tmp_path, form, capsys):
    shutil.copytree(ended.root, tmp_path / "copy")
    spec = form(SPEC)
    if isinstance(spec, str):
        (tmp_path / "study.yaml").write_text(spec)
        spec = tmp_path / "study.yaml"
    study = gitdist.run(spec, results=tmp_path / "copy", progress=False)
    assert study.status.state == "finished" and capsys.readouterr().out == ""


def test_the_settings_of_libraries_are_restored(ended, tmp_path, monkeypatch):
    shutil.copytree(ended.root, tmp_path / "copy")
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "10")
    for name in ("TUNE_DISABLE_SIGINT_HANDLER", "RAY_AIR_NEW_OUTPUT", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    loggers = [logging.getLogger(name) for name in ("optuna", "ray", "matplotlib")]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.INFO)
    before = dict(os.environ)
    study = gitdist.run(SPEC, results=tmp_path / "copy", progress=False)
    _ = study.trials(), study.optuna_study
    assert os.environ == before
    assert [logger.level for logger in loggers] == [logging.INFO] * 3


class Failing(Callback):
    def trial_ended(self, trial, state, reason):
        raise ZeroDivisionError(f"{trial} is {state}")


def test_the_exception_of_a_callback_is_an_error_of_the_study():
    observer = CallbackObserver([Failing()])
    observer.trial_started(BASELINE, {})
    with pytest.raises(CallbackError, match="baseline is finished") as caught:
        observer.trial_ended(BASELINE, Outcome("finished", 3))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
