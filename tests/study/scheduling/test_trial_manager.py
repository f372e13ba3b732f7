"""What the course of a study makes of each thing that can happen to a trial, with a real ledger and no Ray."""

import pytest

from gitdist.errors import DiskError, StudyError
from gitdist.spec import StudySpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.scheduling.trial_manager import MAX_DEATHS, TrialManager

EPOCHS = 3
FIRST = TrialId("trial", 0)


class Log:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def trial_started(self, trial, params) -> None:
        self.told.append(("started", str(trial)))

    def trial_waits(self, trial) -> None:
        self.told.append(("waits", str(trial)))

    def no_room(self, waited_s) -> None:
        self.told.append(("no room", waited_s))

    def epoch_ended(self, trial, row) -> None:
        self.told.append(("epoch", str(trial), row["epoch"]))

    def trial_ended(self, trial, outcome: Outcome) -> None:
        self.told.append((outcome.state, str(trial)))
        self.reason = outcome.reason


@pytest.fixture
def begin(tmp_path):
    opened = []

    def begin(with_baseline=False, check_owner=lambda thorough: None, **search) -> tuple[TrialManager, Ledger, Log]:
        spec = StudySpec.model_validate(
            {
                "name": "study",
                "trial": {"epochs": EPOCHS},
                "search": {"total": 2, "algorithm": "random", "space": {"fraction": {"float": [0, 1]}}, **search},
            }
        )
        paths = StudyPaths(tmp_path, "study")
        paths.create()
        ledger, log = Ledger.open(paths, spec), Log()
        opened.append(ledger)
        return TrialManager(ledger, log, spec, with_baseline=with_baseline, check_owner=check_owner), ledger, log

    yield begin
    for ledger in opened:
        ledger.close()


def row(epoch: int, accuracy: float = 0.5) -> dict:
    return {"rows": [{"epoch": epoch, "val/balanced_accuracy": accuracy}]}


def train(course: TrialManager, first: int = 1, last: int = EPOCHS) -> None:
    course.started(FIRST)
    for epoch in range(first, last + 1):
        assert course.heard(FIRST, row(epoch))


def states(ledger: Ledger) -> list[str]:
    return [record.state for record in ledger.trials()]


def test_the_baseline_comes_first_then_the_ledgers_trials_and_then_it_is_over(begin):
    course, ledger, log = begin(with_baseline=True)
    order = []
    while not course.over:
        assignment = course.next_trial()
        if assignment is None:  # the ledger has no more; it is over with the next look
            continue
        order.append(str(assignment.trial))
        course.started(assignment.trial)
        for epoch in range(1, EPOCHS + 1):
            assert course.heard(assignment.trial, row(epoch))
        course.ended(assignment.trial)
    assert order == ["baseline", "0", "1"]
    assert states(ledger) == ["finished", "finished"]
    assert log.told.count(("finished", "baseline")) == 1


def test_while_trials_run_it_is_not_over_for_their_workers_may_die(begin):
    course, _, _ = begin(total=1)
    assert course.next_trial().trial == FIRST
    assert course.next_trial() is None
    assert not course.over
    train(course)
    course.ended(FIRST)
    assert course.next_trial() is None
    assert course.over


def test_a_trial_that_waits_is_told_and_stopped_with_the_others(begin):
    course, _, log = begin(total=1)
    course.next_trial()
    course.started(FIRST)
    assert course.heard(FIRST, {"rows": []})
    course.stop()
    assert not course.heard(FIRST, {"rows": []})
    course.ended(FIRST)
    assert [told[0] for told in log.told] == ["started", "waits", "waits", "interrupted"]


def test_a_lost_worker_is_replaced_at_the_epoch_that_the_ledger_knows(begin):
    course, ledger, log = begin(total=1)
    course.next_trial()
    train(course, last=2)
    course.died(FIRST, "killed")
    again = course.next_trial()
    assert (again.trial, again.noted) == (FIRST, 2)
    assert states(ledger) == ["running"]
    train(course, first=2)
    course.ended(FIRST)
    assert states(ledger) == ["finished"]
    assert [told[0] for told in log.told if told[0] != "epoch"] == ["started", "interrupted", "started", "finished"]


def test_workers_that_keep_dying_in_one_epoch_fail_the_trial_and_progress_forgives(begin):
    course, ledger, log = begin(total=1)
    for _ in range(MAX_DEATHS - 1):
        course.next_trial()
        course.started(FIRST)
        course.died(FIRST, "killed")
    course.next_trial()
    train(course, last=1)  # an epoch of progress
    for death in range(MAX_DEATHS):
        assert states(ledger) == ["running"], death
        course.died(FIRST, "killed")
        course.next_trial()
    assert states(ledger) == ["failed"]
    assert "3 times in epoch 2" in ledger.trials()[0].reason
    assert log.told[-1] == ("failed", "0")


def test_lost_nodes_are_never_counted(begin):
    course, ledger, _ = begin(total=1)
    for _ in range(3 * MAX_DEATHS):
        assert course.next_trial().trial == FIRST
        course.started(FIRST)
        course.died(FIRST, "its node has died", "none")
    assert states(ledger) == ["running"]


def test_out_of_memory_is_failed_at_once_with_a_remedy(begin):
    course, ledger, _ = begin()
    course.next_trial()
    course.died(FIRST, "low on memory", "memory")
    assert states(ledger) == ["failed"]
    assert "trial.batch_size" in ledger.trials()[0].reason


def test_a_reported_failure_is_the_trials_and_the_study_goes_on(begin):
    course, ledger, _ = begin()
    course.next_trial()
    assert course.heard(FIRST, {"failed": "the loss is nan"})
    course.ended(FIRST)
    assert (states(ledger), ledger.trials()[0].reason) == (["failed"], "the loss is nan")
    assert course.next_trial().trial == TrialId("trial", 1)


def test_a_last_row_without_an_objective_is_a_failure_for_ledger_and_observers(begin):
    course, ledger, log = begin()
    course.next_trial()
    train(course, last=2)
    course.heard(FIRST, row(3, float("nan")))
    course.ended(FIRST)
    assert states(ledger) == ["failed"]
    assert log.told[-1] == ("failed", "0") and "nan" in log.reason


@pytest.mark.parametrize(("kind", "trouble"), [("halt", StudyError), ("disk", DiskError)])
def test_what_concerns_the_whole_study_ends_the_handing_out_and_leaves_trials_resumable(begin, kind, trouble):
    course, ledger, log = begin()
    course.next_trial()
    train(course, last=1)
    course.heard(FIRST, {kind: "no space left"})
    course.ended(FIRST)
    assert type(course.trouble) is trouble and str(course.trouble) == "no space left"
    assert course.over and course.next_trial() is None
    course.close()
    assert states(ledger) == ["running"]
    assert log.told[-1] == ("interrupted", "0")


def test_stop_lets_each_trial_end_its_epoch_and_a_whole_one_finish(begin):
    course, ledger, log = begin()
    course.next_trial(), course.next_trial()
    second = TrialId("trial", 1)
    train(course, last=2)
    course.started(second)
    course.stop()
    assert course.next_trial() is None and course.over
    assert not course.heard(second, row(1))
    course.ended(second)
    assert course.heard(FIRST, row(3))
    course.ended(FIRST)
    assert states(ledger) == ["finished", "running"]
    assert log.told[-3:] == [("interrupted", "1"), ("epoch", "0", 3), ("finished", "0")]


def test_after_a_lost_lease_the_ledger_is_left_alone(begin):
    taken = []

    def check_owner(thorough: bool) -> None:
        if taken:
            raise StudyError("taken over")

    course, ledger, _ = begin(check_owner=check_owner)
    course.next_trial()
    train(course, last=2)
    taken.append(True)
    assert not course.heard(FIRST, row(3))
    course.ended(FIRST)
    assert course.next_trial() is None
    assert str(course.trouble) == "taken over"
    assert (states(ledger), list(ledger.trials()[0].curve)) == (["running"], [1, 2])


def test_a_lease_that_is_lost_while_there_is_no_room_ends_the_wait(begin):
    taken = []

    def check_owner(thorough: bool) -> None:
        if taken:
            raise StudyError("taken over")

    course, _, log = begin(check_owner=check_owner)
    course.next_trial()
    course.no_room(5.0)
    taken.append(True)
    course.no_room(65.0)
    assert str(course.trouble) == "taken over" and course.over
    assert log.told == [("no room", 5.0)]


def test_a_worker_that_a_new_owner_superseded_is_not_replaced(begin):
    taken = []

    def check_owner(thorough: bool) -> None:
        if taken and thorough:  # the next beat would tell
            raise StudyError("taken over")

    course, ledger, log = begin(check_owner=check_owner)
    course.next_trial()
    train(course, last=1)
    taken.append(True)
    course.ended(FIRST)
    assert str(course.trouble) == "taken over" and course.next_trial() is None
    assert log.told[-1] == ("epoch", "0", 1)


def test_a_trial_that_never_started_leaves_no_trace_with_observers(begin):
    course, ledger, log = begin()
    course.next_trial()
    course.stop()
    course.close()
    assert log.told == [] and states(ledger) == ["running"]


def test_a_worker_that_ends_without_a_word_is_replaced(begin):
    course, ledger, _ = begin(total=1)
    course.next_trial()
    train(course, last=1)
    course.ended(FIRST)  # superseded, say
    assert course.next_trial().noted == 1
    assert states(ledger) == ["running"]


def test_a_failed_baseline_is_remembered_and_does_not_touch_the_trials(begin):
    course, ledger, log = begin(with_baseline=True)
    assert course.next_trial().trial == BASELINE
    course.started(BASELINE)
    course.heard(BASELINE, {"failed": "the loss is nan"})
    course.ended(BASELINE)
    assert ledger.get_attr("baseline_failure") == "the loss is nan"
    assert log.told[-1] == ("failed", "baseline")
    assert course.next_trial().trial == FIRST


def test_a_pruned_trial_stops_and_is_told_so(begin):
    pruner = {"kind": "successive-halving", "min_epochs": 1, "reduction_factor": 2}
    course, ledger, log = begin(pruner=pruner)
    course.next_trial(), course.next_trial()
    course.started(FIRST)
    assert course.heard(FIRST, row(1, 0.9))
    second = TrialId("trial", 1)
    course.started(second)
    assert not course.heard(second, row(1, 0.1))
    course.ended(second)
    assert states(ledger) == ["running", "pruned"]
    assert log.told[-1] == ("pruned", "1")
