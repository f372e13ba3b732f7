"""Start and end of MLflow's runs: those of the study, its generator and its trials, also in a store made later."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import open_rows
from gitdist.study.files.times import GENERATOR, STUDY, Span, Times
from gitdist.study.monitoring.mlflow.sync import GeneratorRecord, StudyRecord, sync_study
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, ROW, TRIAL, flush, rows, write_rows

NOW = 1_800_000_000.0  # weeks after the prefix
STEPS = [TrainingStep(step=step, total=20, losses={"image": 1 / step}, elapsed_s=0.0) for step in (10, 20)]
DONE = Outcome("finished")


def write_shared_rows(paths: StudyPaths, trial: TrialId) -> None:
    """Leave a trial with two epochs that another one trained long before, and two of its own at ``NOW``."""
    write_rows(paths, trial, 2)
    taken = [replace(row, trained_by="other-12345678/0", train_s=7.0, evaluating_s=1.0) for row in rows(2)]
    own = [
        replace(ROW, epoch=epoch, trained_by="study-one/7", train_s=5.0, evaluating_s=1.0, ended_at=ended_at)
        for epoch, ended_at in ((3, NOW + 10), (4, NOW + 20))
    ]
    open_rows(paths.rows(trial), [*taken, *own]).close()
    paths.identity.write_text("one")


def note(paths: StudyPaths, *lines: tuple[str, str, float]) -> None:
    paths.times.write_text("".join(json.dumps({"of": of, what: at}) + "\n" for of, what, at in lines))


def times_of(runs) -> dict[str, tuple[int, int]]:
    return {key: (run.info.start_time, run.info.end_time) for key, run in runs.by_key().items()}


def ms(*seconds: float) -> tuple[int, ...]:
    return tuple(int(1000 * second) for second in seconds)


def sync(paths: StudyPaths, generator: GeneratorRecord | None = None) -> None:
    record = StudyRecord(
        identity="one", description=DESCRIPTION, states={TRIAL: ({}, DONE)}, num_open=1, generator=generator
    )
    sync_study(paths, tracking_uri(paths, None), record)


def test_a_trial_that_took_its_prefix_from_another_starts_when_it_started_itself(paths, runs):
    write_shared_rows(paths, TRIAL)
    note(paths, ("7", "started_at", NOW), ("7", "ended_at", NOW + 21))
    sync(paths)
    assert times_of(runs)["7"] == ms(NOW, NOW + 21)
    run = runs.by_key()["7"].info.run_id
    stamps = [point.timestamp for point in runs.client.get_metric_history(run, "val/ekld")]
    assert sorted(stamps) == [*ms(ROW.ended_at + 1, ROW.ended_at + 2), *ms(NOW + 10, NOW + 20)]  # the true ones


def test_a_trial_of_gitdist_0_5_starts_with_its_first_own_epoch(paths, runs):
    write_shared_rows(paths, TRIAL)
    sync(paths)
    assert times_of(runs)["7"] == ms(NOW + 10 - 6, NOW + 20)


def test_a_trial_of_gitdist_0_5_without_an_own_epoch_started_when_it_was_described(paths, runs):
    write_shared_rows(paths, TRIAL)
    open_rows(paths.rows(TRIAL), [replace(row, trained_by="other-12345678/0") for row in rows(2)]).close()
    os.utime(paths.trial(TRIAL) / "trial.json", (NOW, NOW))
    sync(paths)
    assert times_of(runs)["7"] == ms(NOW, NOW)


def test_a_resumed_trial_keeps_its_first_start_and_has_its_last_end(paths, runs):
    write_shared_rows(paths, TRIAL)
    first, second = (("7", "started_at", NOW), ("7", "ended_at", NOW + 11)), (("7", "started_at", NOW + 90),)
    note(paths, *first, *second)
    assert Times(paths).span("7") == Span(NOW, None)
    sync(paths)
    assert times_of(runs)["7"] == ms(NOW, NOW + 20)  # its driver was killed, so the last epoch's


def test_a_driver_and_a_later_sync_give_every_run_the_same_times(paths, runs, empty_store):
    paths.identity.write_text("one")
    for trial in (TRIAL, BASELINE):  # whose rows are of long ago
        shutil.rmtree(paths.trial(trial))
    failed = TrialId("trial", 8)
    with Times.open(paths) as times:
        times.started(STUDY)
        tracker = Tracker(paths, tracking_uri(paths, None), "one", DESCRIPTION, print, times=times)
        times.started(GENERATOR)
        tracker.generator_started()
        times.ended(GENERATOR)
        tracker.generator_ended("munit-abc", STEPS)
        for trial, outcome in ((TRIAL, DONE), (failed, Outcome("failed", reason="loss became nan"))):
            times.started(str(trial))
            tracker.trial_started(trial, {})
            assert flush(tracker)
            times.ended(str(trial))
            tracker.trial_ended(trial, outcome)
        times.ended(STUDY)
        tracker.close("FAILED")
    before = times_of(runs)
    noted = [json.loads(line) for line in paths.times.read_text().splitlines()]
    moments = [line.get("started_at", line.get("ended_at")) for line in noted]
    assert [line["of"] for line in noted] == ["study", "generator", "generator", "7", "7", "8", "8", "study"]
    pairs = {"study": (0, 7), "generator": (1, 2), "7": (3, 4), "8": (5, 6)}
    assert before == {key: ms(*(moments[i] for i in at)) for key, at in pairs.items()}
    shutil.copy(empty_store, paths.tracking_db)
    states = {TRIAL: ({}, DONE), failed: ({}, Outcome("failed"))}
    generator = GeneratorRecord(name="munit-abc", steps=STEPS)
    sync_study(
        paths,
        tracking_uri(paths, None),
        StudyRecord(identity="one", description=DESCRIPTION, states=states, generator=generator),
    )
    assert times_of(runs) == before


def test_a_generator_lasts_as_long_as_the_study_took_to_have_it_and_a_later_driver_changes_nothing(paths, runs):
    note(paths, ("generator", "started_at", NOW), ("generator", "ended_at", NOW + 0.5))
    sync(paths, GeneratorRecord(name="munit-abc", steps=STEPS))
    assert times_of(runs)["generator"] == ms(NOW, NOW + 0.5)
    tracker = Tracker(paths, tracking_uri(paths, None), "one", DESCRIPTION, print)
    tracker.generator_started()
    assert flush(tracker)
    tracker.generator_ended("munit-abc", STEPS)
    tracker.close("FINISHED")
    assert times_of(runs)["generator"] == ms(NOW, NOW + 0.5)
    run = runs.by_key()["generator"].info.run_id
    assert {point.timestamp for point in runs.client.get_metric_history(run, "image")} == {ms(NOW + 0.5)[0]}


def test_a_study_of_gitdist_0_5_has_the_times_of_its_trials_and_accounts(paths, runs):
    write_shared_rows(paths, TRIAL)
    shutil.rmtree(paths.study / "baseline")
    paths.usage.mkdir()
    (paths.usage / "0000.json").write_text(json.dumps({"wall_s": 40.0, "generator_training_s": 3.0}))
    paths.monitor_log.write_text(json.dumps({"step": 1, "at": NOW + 25}) + "\n")
    paths.summary.write_text(json.dumps({"trials": {"finished": 1}, "best": None, "wall_s": 40.0}))
    sync(paths, GeneratorRecord(name="munit-abc", steps=STEPS))
    assert times_of(runs)["generator"] == ms(NOW + 1, NOW + 4)
    assert times_of(runs)["study"] == ms(NOW - 15, NOW + 25)


def test_a_resumed_study_starts_with_its_first_driver_and_ends_with_its_last(paths, runs):
    shutil.rmtree(paths.study / "baseline")
    shutil.rmtree(paths.trial(TRIAL))
    day = 86_400.0
    note(
        paths,
        ("study", "started_at", NOW),
        ("study", "ended_at", NOW + 10),
        ("study", "started_at", NOW + day),
        ("study", "ended_at", NOW + day + 10),
    )
    sync_study(paths, tracking_uri(paths, None), StudyRecord(identity="one", description=DESCRIPTION, states={}))
    assert times_of(runs)["study"] == ms(NOW, NOW + day + 10)


@pytest.mark.parametrize("name", ["test.json", "summary.json"])
def test_figures_that_hold_their_time_keep_it_in_a_copy(paths, runs, name):
    place = paths.trial(TRIAL) / name if name == "test.json" else paths.summary
    figures = {"metrics": {"test/ekld": 0.5}, "evaluated_at": NOW}
    best = {"number": 7, "params": {}, "val": {"val/ekld": 0.25}, "test": {}}
    summary = {"objectives": ["val/ekld"], "trials": {"finished": 1}, "best": best, "ended_at": NOW}
    place.write_text(json.dumps(figures if name == "test.json" else summary))
    sync(paths)
    key, metric = ("7", "test/ekld") if name == "test.json" else ("study", "best/val/ekld")
    run = runs.by_key()[key]
    (point,) = runs.client.get_metric_history(run.info.run_id, metric)
    assert point.timestamp == ms(NOW)[0] and "ended_at" not in run.data.metrics


def test_a_torn_line_of_a_killed_driver_is_left_out(paths):
    note(paths, ("7", "started_at", NOW))
    with open(paths.times, "a") as file:
        file.write('{"of":"7","end')
    with Times.open(paths) as times:
        times.ended("7")
    again = Times(paths).span("7")
    assert again.started_at == NOW and again.ended_at is not None
