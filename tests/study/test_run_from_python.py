"""A study that is run in a Python process which uses Ray already."""

import logging
import os
import signal
from collections.abc import Callable

import pytest
import ray
import torch
import yaml

import gitdist
from gitdist.api.callbacks import Callback
from tests.study.small_study import NO_MODELS, SPEC, SmallStudy, stocked

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


class Events(Callback):
    """Keeps the events, and calls ``do`` at the first that begins like ``at``."""

    def __init__(self, at: tuple, do: Callable[[], object]) -> None:
        self.events, self.at, self.do = [], at, do

    def trial_started(self, trial, params):
        self._add("started", trial, params)

    def epoch_ended(self, trial, epoch, metrics):
        self._add("epoch", trial, epoch, metrics["val/balanced_accuracy"])

    def trial_ended(self, trial, state, reason):
        self._add("ended", trial, state, reason)

    def _add(self, *event):
        self.events.append(event)
        if event[: len(self.at)] == self.at:
            self.at = ("done",)
            self.do()


def library_settings() -> tuple:
    variables = {name: value for name, value in os.environ.items() if name.startswith(("MLFLOW_", "TUNE_"))}
    return variables, signal.getsignal(signal.SIGUSR1), logging.getLogger("optuna").level


def test_a_callback_stops_a_study_the_same_call_resumes_it_and_a_point_is_added_meanwhile(
    undisturbed, ray_cluster, tmp_path, capsys
):
    spec = yaml.safe_load(yaml.safe_dump({**SPEC, **NO_MODELS}))  # suggestions depend on the order of the fields
    results = stocked(tmp_path, undisturbed).results
    before = library_settings()
    with pytest.raises(ZeroDivisionError):
        gitdist.run(spec, results=results, progress=False, callbacks=[Events(("epoch", 0, 2), lambda: 1 / 0)])
    assert library_settings() == before
    study = gitdist.load_study(results / "small")
    assert study.status.state == "interrupted" and study.status.owner is None
    point = {"threshold": 30, "fraction": 0.5}
    log = Events(("started",), lambda: study.enqueue(point))
    study = gitdist.run(spec, results=results, progress=False, callbacks=[log])
    assert ray.is_initialized() and capsys.readouterr().out == ""
    assert study.status.state == "finished" and study.status.counts == {"finished": 4}

    table, rows = study.trials(), study.rows()
    assert table.index.tolist() == ["baseline", 0, 1, 2, 3]
    assert table[["threshold", "fraction"]].to_dict("records").count(point) == 1
    assert ("ended", 3, "finished", None) in log.events
    for event in log.events:
        if event[0] == "epoch" and event[2] == 3:
            assert event[3] == table.loc[event[1], "val/balanced_accuracy"]
    assert rows.groupby("trial")["epoch"].apply(list).to_dict() == {trial: [1, 2, 3] for trial in table.index}
    own, other = SmallStudy(results).rows(), undisturbed.rows()
    assert all(own[name] == other[name] for name in ("baseline", "0000"))  # as run by the command line

    best = study.best
    assert best.number == table["objective/balanced_accuracy"].astype(float).idxmax()
    test = gitdist.Dataset(spec["data"], results=results).prepared.test
    found = best.classifier()(torch.tensor(test.images)).argmax(1).numpy()
    recall = [(found[test.labels == label] == label).mean() for label in range(10)]
    assert sum(recall) / 10 == pytest.approx(best.metrics["test/balanced_accuracy"], abs=0.02)
