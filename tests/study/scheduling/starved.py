"""Trials on a Ray whose memory monitor kills early; the first trial asks for too much, beside another that does not.

Run by test_tune_adapter.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import psutil

memory = psutil.virtual_memory()
os.environ["RAY_memory_usage_threshold"] = f"{(memory.total - memory.available + 2**31) / memory.total:.3f}"
os.environ["RAY_memory_monitor_refresh_ms"] = "100"

from gitdist.logging import silence_libraries  # noqa: E402

silence_libraries()

import ray  # noqa: E402

from gitdist.spec import ResourcesSpec, StudySpec  # noqa: E402
from gitdist.study.files.layout import StudyPaths  # noqa: E402
from gitdist.study.ledger.ledger import Ledger  # noqa: E402
from gitdist.study.scheduling.trial_manager import TrialManager  # noqa: E402
from gitdist.study.scheduling.tune_adapter import run_trials  # noqa: E402
from gitdist.study.worker.job import TrialJob  # noqa: E402
from tests.epoch_rows import row_report  # noqa: E402
from tests.study.scheduling.recorder import Recorder  # noqa: E402


def train(job: TrialJob, place: Path) -> None:
    from ray import tune

    tune.report({"begun": True})
    held, hungry, beside = [], place / "hungry", place / "beside"
    if job.trial.number == 0:
        hungry.write_text(str(os.getpid()))
    if job.trial.number == 1:
        beside.touch()
    while job.trial.number == 0 and not beside.exists():
        time.sleep(0.02)
    for epoch in range(1, 4):
        tune.report(row_report(epoch))
        while job.trial.number == 0:
            held.append(b"x" * 2**27)
            time.sleep(0.02)
        while job.trial.number == 1 and (not hungry.exists() or psutil.pid_exists(int(hungry.read_text()))):
            time.sleep(0.02)


if __name__ == "__main__":
    spec = StudySpec(
        name="study",
        trial={"epochs": 3},
        search={"total": 3, "algorithm": "random", "space": {"fraction": {"float": [0, 1]}}},
    )
    paths = StudyPaths.at(Path(sys.argv[1]), "study")
    paths.create()
    ledger = Ledger.open(paths, spec)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    manager = TrialManager(ledger, spec, with_baseline=False, recorder=Recorder(), observers=[])
    trainable = partial(train, place=Path(sys.argv[1]))
    run_trials(trainable, manager, ResourcesSpec(), max_concurrent=2)
    print(json.dumps([[record.state, record.reason] for record in ledger.trials()]))
    ledger.close()
    ray.shutdown()
