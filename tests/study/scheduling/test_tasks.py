"""Tasks of trials on the cluster: so many at once, their errors, and what ends the wait for them."""

import time

import pytest
import ray

from gitdist.errors import StudyError, TrialFailedError
from gitdist.study.files.layout import TrialId
from gitdist.study.scheduling.tasks import run_tasks

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

TRIALS = [TrialId("trial", number) for number in range(7)]


def test_no_more_tasks_are_submitted_than_may_run_at_once():
    task, submitted, ended, most = ray.remote(num_cpus=0)(lambda: None), [], [], 0

    def submit(trial):
        nonlocal most
        submitted.append(trial)
        most = max(most, len(submitted) - len(ended))
        return task.remote()

    for trial in run_tasks(submit, TRIALS, 2, "look at trial {}", lambda: None):
        ended.append(trial)
    assert (submitted, sorted(ended, key=str), most) == (TRIALS, TRIALS, 2)


def test_a_task_that_fails_is_named():
    @ray.remote(num_cpus=0)
    def fails():
        raise TrialFailedError("the loss is nan")

    with pytest.raises(StudyError, match="look at trial 0: the loss is nan"):
        list(run_tasks(lambda trial: fails.remote(), TRIALS, 1, "look at trial {}", lambda: None))


def test_a_study_that_was_taken_over_meanwhile_waits_no_longer():
    def on_poll():
        raise StudyError("taken over")

    sleeps = ray.remote(num_cpus=0)(lambda seconds: time.sleep(seconds))
    started = time.monotonic()
    with pytest.raises(StudyError, match="taken over"):
        list(run_tasks(lambda trial: sleeps.remote(100), TRIALS, 1, "look at trial {}", on_poll))
    assert time.monotonic() - started < 60
