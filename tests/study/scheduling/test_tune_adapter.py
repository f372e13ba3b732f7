"""The trials of a study executed by the real Tune: workers that report, fail, die and are stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

from gitdist.errors import DiskError
from gitdist.logging import silence_libraries
from gitdist.spec import ResourcesSpec, Share, StudySpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.scheduling.trial_manager import MAX_LOSSES, TrialManager
from gitdist.study.worker.job import TrialJob
from tests.epoch_rows import row_report
from tests.stream.holder import Holder
from tests.study.scheduling.recorder import Recorder
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

EPOCHS = 3
PRUNER = {"kind": "successive-halving", "min_epochs": 1, "reduction_factor": 2}


class Log:
    """An observer that notes how trials start and end."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.on_no_capacity = lambda: None

    def trial_started(self, trial, params) -> None:
        self.told.append(f"{trial} started")

    def no_capacity(self, waited_s) -> None:
        self.told.append("no capacity")
        self.on_no_capacity()

    def epoch_ended(self, trial, row) -> None:
        self.told.append(f"{trial} epoch {row.epoch}")

    def trial_ended(self, trial, outcome) -> None:
        self.told.append(f"{trial} {outcome.state}")


@pytest.fixture
def study(tmp_path):
    silence_libraries()
    ledgers = []

    def study(**search) -> tuple[TrialManager, Ledger, Log]:
        spec = StudySpec.model_validate(
            {
                "name": "study",
                "trial": {"epochs": EPOCHS},
                "search": {"algorithm": "random", "space": {"fraction": {"float": [0, 1]}}, **search},
            }
        )
        paths = StudyPaths.at(tmp_path, "study")
        paths.create()
        ledger, log = Ledger.open(paths, spec), Log()
        ledgers.append(ledger)
        return TrialManager(ledger, spec, with_baseline=False, recorder=Recorder(), observers=[log]), ledger, log

    yield study
    for ledger in ledgers:
        ledger.close()


def report(job: TrialJob, first: int = 1, value: float = 0.5) -> None:
    from ray import tune

    for epoch in range(max(first, job.reported_epoch), EPOCHS + 1):
        tune.report(row_report(epoch, value))


def states(ledger: Ledger) -> list[str]:
    return [record.state for record in ledger.trials()]


def test_trials_run_to_their_end_and_every_epoch_is_noted_once(study):
    manager, ledger, log = study(total=4)
    run_here(report, manager)
    assert states(ledger) == ["finished"] * 4
    assert [dict(record.curve) for record in ledger.trials()] == [{1: 0.5, 2: 0.5, 3: 0.5}] * 4
    for number in range(4):
        own = [told for told in log.told if told.startswith(f"{number} ")]
        assert own == [f"{number} started", *(f"{number} epoch {e}" for e in (1, 2, 3)), f"{number} finished"]


def test_a_killed_worker_is_replaced_and_goes_on_from_what_the_ledger_knows(study, tmp_path):
    mark = tmp_path / "killed"

    def train(job: TrialJob) -> None:
        from ray import tune

        if job.trial.number == 1 and not mark.exists():
            tune.report(row_report(1))
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        report(job)

    manager, ledger, log = study(total=3)
    run_here(train, manager)
    assert states(ledger) == ["finished"] * 3
    own = [told for told in log.told if told.startswith("1 ")]
    assert own[:3] == ["1 started", "1 epoch 1", "1 interrupted"]
    assert own[3:] == ["1 started", *(f"1 epoch {epoch}" for epoch in (1, 2, 3)), "1 finished"]


def test_a_worker_that_dies_every_time_fails_its_trial_with_rays_reason(study):
    def train(job: TrialJob) -> None:
        if job.trial.number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        report(job)

    manager, ledger, log = study(total=2)
    run_here(train, manager)
    assert states(ledger) == ["failed", "finished"]
    reason = ledger.trials()[0].reason
    assert "3 times in epoch 1" in reason and "worker process has died" in reason
    assert log.told.count("0 started") == MAX_LOSSES


@pytest.mark.slow  # it needs 2 GiB of memory that nobody else takes meanwhile
def test_a_worker_that_rays_memory_monitor_kills_fails_its_trial_with_a_remedy(tmp_path):
    script = Path(__file__).with_name("starved.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (starved, reason), *others = json.loads(done.stdout.strip().splitlines()[-1])
    assert starved == "failed" and "resources.max_concurrent" in reason
    assert others == [["finished", None]] * 2


def test_failures_that_workers_report_and_nan_are_failed_trials(study):
    def train(job: TrialJob) -> None:
        from ray import tune

        if job.trial.number == 0:
            tune.report({"failed": "the loss is nan"})
        else:
            report(job, value=float("nan") if job.trial.number == 1 else 0.5)

    manager, ledger, _ = study(total=3)
    run_here(train, manager)
    assert states(ledger) == ["failed", "failed", "finished"]
    assert [record.reason for record in ledger.trials()][0] == "the loss is nan"


def test_pruned_trials_are_stopped_and_their_workers_used_again(study):
    def train(job: TrialJob) -> None:
        report(job, value=0.9 - 0.1 * job.trial.number)

    manager, ledger, log = study(total=4, pruner=PRUNER)
    run_here(train, manager, max_concurrent=1)
    assert states(ledger) == ["finished", "pruned", "pruned", "pruned"]
    assert [record.pruned_at for record in ledger.trials()] == [None, 1, 1, 1]
    assert [told for told in log.told if told.startswith("3 ")] == ["3 started", "3 epoch 1", "3 pruned"]


def test_trouble_of_the_whole_study_stops_the_others_at_once_and_leaves_them_open(study):
    def train(job: TrialJob) -> None:
        from ray import tune

        if job.trial.number == 0:
            tune.report({"disk": "the disk is full"})
        else:
            tune.report(row_report(1))
            time.sleep(600)

    manager, ledger, log = study(total=5)
    run_here(train, manager)
    assert isinstance(manager.error, DiskError) and str(manager.error) == "the disk is full"
    assert set(states(ledger)) == {"running"}
    assert not [told for told in log.told if told.endswith(("finished", "failed"))]


def test_a_signal_that_ends_tune_is_no_trials_fault_and_the_study_goes_on(study, tmp_path):
    sent = tmp_path / "sent"

    def train(job: TrialJob) -> None:
        from ray import tune

        tune.report(row_report(1))
        if not sent.exists():
            sent.touch()
            os.kill(driver, signal.SIGUSR1)
            time.sleep(600)
        report(job)

    driver = os.getpid()
    manager, ledger, log = study(total=2)
    run_here(train, manager, max_concurrent=1)
    assert states(ledger) == ["finished"] * 2
    assert log.told[:4] == ["0 started", "0 epoch 1", "0 interrupted", "0 started"]


def test_stop_ends_every_trial_after_its_epoch(study):
    def train(job: TrialJob) -> None:
        from ray import tune

        for epoch in range(1, 1000):
            time.sleep(0.05)
            tune.report(row_report(epoch))

    manager, ledger, log = study(total=5)
    manager._spec = manager._spec.model_copy(update={"trial": manager._spec.trial.model_copy(update={"epochs": 1000})})

    def stop() -> None:
        until(lambda: {"0 epoch 1", "1 epoch 1"} <= set(log.told), limit_s=60)
        manager.stop()

    threading.Thread(target=stop).start()
    run_here(train, manager)
    assert set(states(ledger)) == {"running"} and len(states(ledger)) == 2
    assert sorted(told for told in log.told if "epoch" not in told and "started" not in told) == [
        "0 interrupted",
        "1 interrupted",
    ]


def test_a_cluster_that_adds_nodes_is_asked_for_room_for_all_trials_at_once(study):
    def train(job: TrialJob) -> None:
        from ray.util import placement_group_table

        def others_wait() -> bool:
            return [group["state"] for group in placement_group_table().values()].count("PENDING") == 2

        if job.trial.number == 0:
            until(others_wait, limit_s=30)
        report(job)

    manager, ledger, log = study(total=3)
    run_here(train, manager, max_concurrent=3, trial=Share(cpu=4), autoscaling=True)
    assert states(ledger) == ["finished"] * 3
    assert next(told for told in log.told if told != "no capacity") == "0 started"


def test_a_lack_of_room_for_trials_is_told_until_there_is_some(study):
    manager, ledger, log = study(total=1)
    holder = ray.remote(num_cpus=3)(Holder).remote()
    ray.get(holder.ready.remote())
    log.on_no_capacity = lambda: ray.kill(holder)
    run_here(report, manager, trial=Share(cpu=2))
    assert states(ledger) == ["finished"]
    assert log.told[:2] == ["no capacity", "0 started"]


def run_here(train, manager: TrialManager, max_concurrent: int = 2, **resources) -> None:
    from gitdist.study.scheduling.tune_adapter import run_trials

    run_trials(train, manager, ResourcesSpec(max_concurrent=max_concurrent, **resources), max_concurrent)
