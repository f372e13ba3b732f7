"""Functions that the tests of the ledger run in other processes, to kill them."""

import math
import threading

import optuna

from gitdist.spec import Dimension, StudySpec
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.storage import HostLock, close_storage, open_storage

CAMPAIGN = StudySpec(
    name="study",
    trial={"epochs": 6, "switch_epoch": 2},
    search={
        "total": 12,
        "algorithm": "random",
        "space": {"fraction": Dimension(float=(0.1, 0.9)), "sampler": Dimension(choice=("instance", "square-root"))},
        "pruner": {"kind": "successive-halving", "min_epochs": 1, "reduction_factor": 2},
    },
)


def open_and_add(paths, line, barrier, counts) -> None:
    """Open a storage at the same moment as others, and add a trial."""
    barrier.wait()
    storage = open_storage(line, paths)
    study = optuna.create_study(storage=storage, study_name="study", load_if_exists=True)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    close_storage(storage)
    counts.put("opened")


def open_and_look(paths, line, barrier, numbers) -> None:
    """Open a ledger at the same moment as others, and say how many trials it has."""
    barrier.wait()
    ledger = Ledger.open(paths, CAMPAIGN.model_copy(update={"ledger": line}))
    numbers.put(len(ledger.trials()))
    ledger.close()


def hold_journal(path, held) -> None:
    """Take a journal's lock and keep it for ever."""
    HostLock(path).acquire()
    held.set()
    threading.Event().wait()


def objective(params, epoch: int) -> float:
    """A learning curve that is known beforehand."""
    return params["fraction"] * epoch / 10 + 0.01 * (params["sampler"] == "instance")


def work(ledger: Ledger, spec: StudySpec, num_epochs: float = math.inf) -> None:
    """Do what a serial driver does: each trial epoch by epoch, going on from the last noted one; at most so many."""
    while (record := ledger.next_trial()) is not None:
        name, pruned = spec.search.objectives[0], False
        for epoch in range(max(record.curve, default=1), spec.trial.epochs + 1):
            if num_epochs <= 0:
                return
            num_epochs -= 1
            metrics = {name: objective(record.params, epoch)}
            pruned = ledger.report(record.number, epoch, metrics)
            if pruned:
                break
        if not pruned:
            ledger.finish(record.number, metrics)


def run_campaign(paths, line, opened, num_epochs) -> None:
    """Open the ledger, work on the study for at most so many epochs, and wait to be killed."""
    spec = CAMPAIGN.model_copy(update={"ledger": line})
    ledger = Ledger.open(paths, spec)
    opened.set()
    work(ledger, spec, num_epochs)
    threading.Event().wait()
