"""A search gives the points of a plain Optuna loop with the same sampler, whatever kills and resumes it."""

import os
import signal
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from gitdist.spec import SearchSpec
from gitdist.spec.objective import Constraint
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.space import grid_plan
from gitdist.study.ledger.storage import open_storage
from tests.processes import forkserver

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

TRIALS = 24
SPACE = {
    "threshold": {"int": [10, 1000], "log": True},
    "fraction": {"float": [0.1, 0.9]},
    "sampler": {"choice": ["instance", "class-balanced"]},
}
RANGES = {name: SPACE[name] for name in ("threshold", "fraction")}
BOUND = Constraint(metric="val/few_accuracy", bound=">=", limit=0.5)
TWO = ["val/balanced_accuracy", "val/ekld"]
PROCESSES = forkserver("gitdist.study.ledger.ledger")

CASES: Mapping[str, tuple[dict[str, Any], Callable[[], BaseSampler]]] = {
    "tpe": ({"algorithm": "tpe"}, lambda: tpe()),
    "gp": ({"algorithm": "gp"}, lambda: GPSampler(seed=7, n_startup_trials=4)),
    "grid": (
        {"algorithm": "grid", "space": {**SPACE, "fraction": {"float": [0.1, 0.9], "points": 3}}},
        lambda: RandomSampler(seed=7),
    ),
    "random": ({"algorithm": "random"}, lambda: RandomSampler(seed=7)),
    "nsga2": (
        {"algorithm": "nsga2", "options": {"population_size": 6}, "objective": TWO},
        lambda: NSGAIISampler(seed=7, population_size=6),
    ),
    "tpe with two objectives": ({"algorithm": "tpe", "objective": TWO}, lambda: tpe()),
    "tpe with a constraint": ({"algorithm": "tpe", "constraints": [str(BOUND)]}, lambda: tpe()),
    "nsga2 with a constraint": (
        {"algorithm": "nsga2", "options": {"population_size": 6}, "objective": TWO, "constraints": [str(BOUND)]},
        lambda: NSGAIISampler(seed=7, population_size=6),
    ),
    "qmc": ({"algorithm": "optuna.samplers:QMCSampler", "space": RANGES}, lambda: QMCSampler(seed=7)),
    "nsga3": (
        {"algorithm": "optuna.samplers:NSGAIIISampler", "options": {"population_size": 6}, "objective": TWO},
        lambda: NSGAIIISampler(seed=7, population_size=6),
    ),
    "hyperband": (
        {"algorithm": "tpe", "pruner": {"kind": "hyperband", "min_epochs": 1, "reduction_factor": 2}},
        lambda: tpe(),
    ),
}


def tpe() -> TPESampler:
    return TPESampler(seed=7, n_startup_trials=4, multivariate=True, constant_liar=True)


def search_of(case: str, **fields: Any) -> SearchSpec:
    defaults = {"space": SPACE, "total": TRIALS, "startup": 4, "seed": 7}
    return SearchSpec.model_validate({**defaults, **CASES[case][0], **fields})


def curve(params: Mapping[str, Any], epochs: int = 4) -> list[float]:
    """A cheap objective by epoch."""
    quality = -abs(params["threshold"] - 200) / 1000 - (params["fraction"] - 0.6) ** 2
    return [quality + 0.1 * (params.get("sampler") == "instance") * epoch for epoch in range(1, epochs + 1)]


def few_accuracy(params: Mapping[str, Any]) -> float:
    return params["threshold"] / 1000


@cache
def plain_points(case: str, lag: int = 1) -> list[dict[str, Any]]:
    """The points of a plain Optuna loop that asks for ``lag`` trials before it tells the first result."""
    search = search_of(case)
    if search.algorithm == "grid":
        return grid_plan(search)
    pruned = search.pruner.kind == "hyperband"
    hyperband = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=4, reduction_factor=2)
    pruner = hyperband if pruned else optuna.pruners.NopPruner()
    sampler = CASES[case][1]()
    study = optuna.create_study(study_name="study", sampler=sampler, directions=search.directions, pruner=pruner)
    waiting: list[optuna.Trial] = []
    for _ in range(TRIALS):
        if len(waiting) == lag:
            tell_plainly(study, waiting.pop(0))
        trial = study.ask()
        trial.suggest_int("threshold", 10, 1000, log=True)
        trial.suggest_float("fraction", 0.1, 0.9)
        if "sampler" in search.space:
            trial.suggest_categorical("sampler", ["instance", "class-balanced"])
        if search.constraints:
            trial.set_constraint(str(BOUND), BOUND.violation(few_accuracy(trial.params)))
        waiting.append(trial)
    return [trial.params for trial in study.trials]


def tell_plainly(study: optuna.Study, trial: optuna.Trial) -> None:
    values = curve(trial.params)
    if len(study.directions) > 1:
        study.tell(trial, [values[-1], values[0] ** 2])
        return
    for step, value in enumerate(values, start=1):
        trial.report(value, step)
        if step < len(values) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, values[-1])


def train(ledger: Ledger, number: int, params: Mapping[str, Any]) -> None:
    for epoch, value in enumerate(curve(params), start=1):
        if ledger.report(number, epoch, {"val/balanced_accuracy": value}):
            return
    few = few_accuracy(params)
    ledger.finish(number, {"val/balanced_accuracy": value, "val/ekld": curve(params)[0] ** 2, "val/few_accuracy": few})


def search_on(ledger: Ledger, lag: int = 1, stop_before: int | None = None) -> None:
    """Run trials to their end, in the order of their numbers, with ``lag`` at once; be killed in one of them."""
    running = []
    while True:
        while len(running) < lag and (record := ledger.next_trial()) is not None:
            running.append(record)
            if record.number == stop_before:
                os.kill(os.getpid(), signal.SIGKILL)
        if not running:
            return
        record = running.pop(0)
        train(ledger, record.number, record.params)


def points(ledger: Ledger) -> list[dict[str, Any]]:
    return [dict(record.params) for record in ledger.trials()]


@pytest.mark.parametrize("case", [case for case in CASES if case != "gp"])  # that takes long, and is killed below
def test_the_points_are_those_of_a_plain_loop(case):
    ledger = Ledger(InMemoryStorage(), "study", search_of(case), epochs=4)
    search_on(ledger)
    expected = plain_points(case)
    assert points(ledger) == expected
    assert len({tuple(point.items()) for point in expected}) > TRIALS // 2


@pytest.mark.parametrize("case", ["tpe", "nsga2", "qmc"])
def test_with_a_lag_the_points_are_those_of_a_loop_that_asks_ahead(case):
    ledger = Ledger(InMemoryStorage(), "study", search_of(case, lag=3))
    search_on(ledger, lag=3)
    assert points(ledger) == plain_points(case, lag=3)


def run_until_killed(case: str, directory: Path, stop_before: int | None, lag: int) -> None:
    ledger = open_ledger(case, directory, lag)
    search_on(ledger, lag, stop_before)


def open_ledger(case: str, directory: Path, lag: int) -> Ledger:
    StudyPaths.at(directory, "study").create()
    storage = open_storage("journal", StudyPaths.at(directory, "study"))
    return Ledger(storage, "study", search_of(case, **({"lag": lag} if lag > 1 else {})), epochs=4)


@pytest.mark.parametrize(
    ("case", "lag"), [*((case, 1) for case in CASES), ("tpe", 3), pytest.param("gp", 3, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_the_points_are_the_same(case, lag, tmp_path):
    for stop_before in (3, 9, 15, None):
        process = PROCESSES.Process(target=run_until_killed, args=(case, tmp_path, stop_before, lag))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if stop_before else 0)
    ledger = open_ledger(case, tmp_path, lag)
    assert points(ledger) == plain_points(case, lag)
    ledger.close()
