"""Decisions of the trial manager on each event of a trial, with a real ledger and without Ray."""

import optuna
import pytest

from gitdist.errors import DiskError, StudyError
from gitdist.spec import StudySpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.scheduling.trial_manager import MAX_LOSSES, TrialManager
from tests.epoch_rows import row_report
from tests.study.scheduling.recorder import Recorder

EPOCHS = 3
FIRST = TrialId("trial", 0)


class Log:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def trial_started(self, trial, params) -> None:
        self.told.append(("started", str(trial)))

    def trial_waits(self, trial) -> None:
        self.told.append(("waits", str(trial)))

    def no_capacity(self, waited_s) -> None:
        self.told.append(("no capacity", waited_s))

    def epoch_ended(self, trial, row) -> None:
        self.told.append(("epoch", str(trial), row.epoch))

    def trial_ended(self, trial, outcome: Outcome) -> None:
        self.told.append((outcome.state, str(trial)))
        self.reason = outcome.reason


@pytest.fixture
def begin(tmp_path):
    opened = []

    def begin(
        with_baseline=False, check_owner=lambda thorough: None, mlflow_run=lambda trial: None, **search
    ) -> tuple[TrialManager, Ledger, Log]:
        spec = StudySpec.model_validate(
            {
                "name": "study",
                "trial": {"epochs": EPOCHS},
                "search": {"total": 2, "algorithm": "random", "space": {"fraction": {"float": [0, 1]}}, **search},
            }
        )
        paths = StudyPaths.at(tmp_path, "study")
        paths.create()
        ledger, log = Ledger.open(paths, spec), Log()
        opened.append(ledger)
        return (
            TrialManager(
                ledger,
                spec,
                with_baseline=with_baseline,
                recorder=Recorder(),
                observers=[log],
                check_owner=check_owner,
                mlflow_run=mlflow_run,
            ),
            ledger,
            log,
        )

    yield begin
    for ledger in opened:
        ledger.close()


def train(manager: TrialManager, first: int = 1, last: int = EPOCHS) -> None:
    manager.on_start(FIRST)
    for epoch in range(first, last + 1):
        assert manager.on_report(FIRST, row_report(epoch))


def states(ledger: Ledger) -> list[str]:
    return [record.state for record in ledger.trials()]


def test_the_baseline_comes_first_then_the_ledgers_trials_and_then_it_is_over(begin):
    manager, ledger, log = begin(with_baseline=True)
    order = []
    while not manager.done:
        job = manager.next_job()
        if job is None:  # the ledger has no more; it is over with the next look
            continue
        order.append(str(job.trial))
        manager.on_start(job.trial)
        for epoch in range(1, EPOCHS + 1):
            assert manager.on_report(job.trial, row_report(epoch))
        manager.on_complete(job.trial)
    assert order == ["baseline", "0", "1"]
    assert states(ledger) == ["finished", "finished"]
    assert log.told.count(("finished", "baseline")) == 1


def test_while_trials_run_it_is_not_over_for_their_workers_may_die(begin):
    manager, _, _ = begin(total=1)
    assert manager.next_job().trial == FIRST
    assert manager.next_job() is None
    assert not manager.done
    train(manager)
    manager.on_complete(FIRST)
    assert manager.next_job() is None
    assert manager.done


def test_a_trial_that_waits_is_told_and_stopped_with_the_others(begin):
    manager, _, log = begin(total=1)
    manager.next_job()
    manager.on_start(FIRST)
    assert manager.on_report(FIRST, {"rows": []})
    manager.stop()
    assert not manager.on_report(FIRST, {"rows": []})
    manager.on_complete(FIRST)
    assert [told[0] for told in log.told] == ["started", "waits", "waits", "interrupted"]


def test_a_lost_worker_is_replaced_at_the_epoch_that_the_ledger_knows(begin):
    manager, ledger, log = begin(total=1)
    manager.next_job()
    train(manager, last=2)
    manager.on_worker_lost(FIRST, "killed")
    again = manager.next_job()
    assert (again.trial, again.reported_epoch) == (FIRST, 2)
    assert states(ledger) == ["running"]
    train(manager, first=2)
    manager.on_complete(FIRST)
    assert states(ledger) == ["finished"]
    assert [told[0] for told in log.told if told[0] != "epoch"] == ["started", "interrupted", "started", "finished"]


def test_workers_that_keep_dying_in_one_epoch_fail_the_trial_and_progress_forgives(begin):
    manager, ledger, log = begin(total=1)
    for _ in range(MAX_LOSSES - 1):
        manager.next_job()
        manager.on_start(FIRST)
        manager.on_worker_lost(FIRST, "killed")
    manager.next_job()
    train(manager, last=1)  # an epoch of progress
    for death in range(MAX_LOSSES):
        assert states(ledger) == ["running"], death
        manager.on_worker_lost(FIRST, "killed")
        manager.next_job()
    assert states(ledger) == ["failed"]
    assert "3 times in epoch 2" in ledger.trials()[0].reason
    assert log.told[-1] == ("failed", "0")


def test_lost_nodes_are_never_counted(begin):
    manager, ledger, _ = begin(total=1)
    for _ in range(3 * MAX_LOSSES):
        assert manager.next_job().trial == FIRST
        manager.on_start(FIRST)
        manager.on_worker_lost(FIRST, "its node has died", "node")
    assert states(ledger) == ["running"]


def test_out_of_memory_is_failed_at_once_with_a_remedy(begin):
    manager, ledger, _ = begin()
    manager.next_job()
    manager.on_worker_lost(FIRST, "low on memory", "memory")
    assert states(ledger) == ["failed"]
    assert "trial.batch_size" in ledger.trials()[0].reason


def test_a_reported_failure_is_the_trials_and_the_study_goes_on(begin):
    manager, ledger, _ = begin()
    manager.next_job()
    assert manager.on_report(FIRST, {"failed": "the loss is nan"})
    manager.on_complete(FIRST)
    assert (states(ledger), ledger.trials()[0].reason) == (["failed"], "the loss is nan")
    assert manager.next_job().trial == TrialId("trial", 1)


def test_a_last_row_without_an_objective_is_a_failure_for_ledger_and_observers(begin):
    manager, ledger, log = begin()
    manager.next_job()
    train(manager, last=2)
    manager.on_report(FIRST, row_report(3, float("nan")))
    manager.on_complete(FIRST)
    assert states(ledger) == ["failed"]
    assert log.told[-1] == ("failed", "0") and "nan" in log.reason


@pytest.mark.parametrize(("kind", "trouble"), [("halt", StudyError), ("disk", DiskError)])
def test_what_concerns_the_whole_study_ends_the_handing_out_and_leaves_trials_resumable(begin, kind, trouble):
    manager, ledger, log = begin()
    manager.next_job()
    train(manager, last=1)
    manager.on_report(FIRST, {kind: "no space left"})
    manager.on_complete(FIRST)
    assert type(manager.error) is trouble and str(manager.error) == "no space left"
    assert manager.done and manager.next_job() is None
    manager.close()
    assert states(ledger) == ["running"]
    assert log.told[-1] == ("interrupted", "0")


def test_stop_lets_each_trial_end_its_epoch_and_a_whole_one_finish(begin):
    manager, ledger, log = begin()
    manager.next_job(), manager.next_job()
    second = TrialId("trial", 1)
    train(manager, last=2)
    manager.on_start(second)
    manager.stop()
    assert manager.next_job() is None and manager.done
    assert not manager.on_report(second, row_report(1))
    manager.on_complete(second)
    assert manager.on_report(FIRST, row_report(3))
    manager.on_complete(FIRST)
    assert states(ledger) == ["finished", "running"]
    assert log.told[-3:] == [("interrupted", "1"), ("epoch", "0", 3), ("finished", "0")]


@pytest.mark.parametrize("cause", ["worker", "memory", "node"])
def test_workers_that_are_stopped_together_with_the_driver_fail_no_trial(begin, cause):
    manager, ledger, log = begin(total=1)
    for _ in range(MAX_LOSSES - 1):
        manager.next_job()
        manager.on_start(FIRST)
        manager.on_worker_lost(FIRST, "killed")
    manager.next_job()
    manager.on_start(FIRST)
    manager.stop()
    manager.on_worker_lost(FIRST, "killed", cause)
    assert manager.done and states(ledger) == ["running"] and log.told[-1] == ("interrupted", "0")


def test_after_a_lost_lease_the_ledger_is_left_alone(begin):
    taken = []

    def check_owner(thorough: bool) -> None:
        if taken:
            raise StudyError("taken over")

    manager, ledger, _ = begin(check_owner=check_owner)
    manager.next_job()
    train(manager, last=2)
    taken.append(True)
    assert not manager.on_report(FIRST, row_report(3))
    manager.on_complete(FIRST)
    assert manager.next_job() is None
    assert str(manager.error) == "taken over"
    assert (states(ledger), list(ledger.trials()[0].curve)) == (["running"], [1, 2])


def test_a_lease_that_is_lost_while_there_is_no_room_ends_the_wait(begin):
    taken = []

    def check_owner(thorough: bool) -> None:
        if taken:
            raise StudyError("taken over")

    manager, _, log = begin(check_owner=check_owner)
    manager.next_job()
    manager.on_no_capacity(5.0)
    taken.append(True)
    manager.on_no_capacity(65.0)
    assert str(manager.error) == "taken over" and manager.done
    assert log.told == [("no capacity", 5.0)]


def test_a_worker_that_a_new_owner_superseded_is_not_replaced(begin):
    taken = []

    def check_owner(thorough: bool) -> None:
        if taken and thorough:  # the next beat would tell
            raise StudyError("taken over")

    manager, ledger, log = begin(check_owner=check_owner)
    manager.next_job()
    train(manager, last=1)
    taken.append(True)
    manager.on_complete(FIRST)
    assert str(manager.error) == "taken over" and manager.next_job() is None
    assert log.told[-1] == ("epoch", "0", 1)


def test_a_trial_that_never_started_leaves_no_trace_with_observers(begin):
    manager, ledger, log = begin()
    manager.next_job()
    manager.stop()
    manager.close()
    assert log.told == [] and states(ledger) == ["running"]


def test_a_worker_that_ends_without_a_word_is_replaced(begin):
    manager, ledger, _ = begin(total=1)
    manager.next_job()
    train(manager, last=1)
    manager.on_complete(FIRST)  # superseded, say
    assert manager.next_job().reported_epoch == 1
    assert states(ledger) == ["running"]


def test_a_failed_baseline_is_remembered_and_does_not_touch_the_trials(begin):
    manager, ledger, log = begin(with_baseline=True)
    assert manager.next_job().trial == BASELINE
    manager.on_start(BASELINE)
    manager.on_report(BASELINE, {"failed": "the loss is nan"})
    manager.on_complete(BASELINE)
    assert ledger.get_attr("baseline_failure") == "the loss is nan"
    assert log.told[-1] == ("failed", "baseline")
    assert manager.next_job().trial == FIRST


def test_a_pruned_trial_stops_and_is_told_so(begin):
    pruner = {"kind": "successive-halving", "min_epochs": 1, "reduction_factor": 2}
    manager, ledger, log = begin(pruner=pruner)
    manager.next_job(), manager.next_job()
    manager.on_start(FIRST)
    assert manager.on_report(FIRST, row_report(1, 0.9))
    second = TrialId("trial", 1)
    manager.on_start(second)
    assert not manager.on_report(second, row_report(1, 0.1))
    manager.on_complete(second)
    assert states(ledger) == ["running", "pruned"]
    assert log.told[-1] == ("pruned", "1")


def test_the_ledger_gets_the_mlflow_run_once_its_id_is_known_and_never_waits_for_it(begin):
    ids = iter([None, None, "run of trial 0"])  # MLflow answers during the second epoch
    manager, ledger, _ = begin(mlflow_run=lambda trial: next(ids, None) if trial == FIRST else None)
    manager.next_job(), manager.next_job()
    train(manager)
    manager.on_complete(FIRST)
    second = TrialId("trial", 1)
    manager.on_start(second)
    for epoch in range(1, EPOCHS + 1):
        manager.on_report(second, row_report(epoch))
    manager.on_complete(second)
    trials = optuna.load_study(study_name="study", storage=ledger.storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get("mlflow.run_id") for trial in trials] == ["run of trial 0", None]
