"""What was seen of a running study, in the parent run: real MLflow stores, fed from ``watch.jsonl`` alone."""

import json
import shutil
from collections.abc import Sequence

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gitdist.study.files.layout import BASELINE, StudyPaths
from gitdist.study.files.times import STUDY, Times
from gitdist.study.monitoring.mlflow.sync import StudyRecord, SyncCounts, sync_study
from gitdist.study.monitoring.mlflow.system_metrics import SystemMetrics
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, TRIAL, flush
from tests.study.sightings import STREAM

NOTHING = SyncCounts(runs_created=0, epochs_added=0, statuses_fixed=0)
AT = 1_700_000_000.0
SHOWN = {"stream/images_per_s", "stream/window_blocks", "stream/server_utilisation", "stream/waiting_s"}


def write_lines(paths: StudyPaths, steps: Sequence[int], *, machine: bool = True) -> None:
    """Leave the lines of a study whose stream began with its third."""
    with open(paths.monitor_log, "a") as file:
        for step in steps:
            figures = {"system/cpu_utilization_percentage": 10.0 * step} if machine or step < 3 else {}
            file.write(json.dumps({"step": step, "at": AT + step, **figures, **(STREAM if step > 2 else {})}) + "\n")


def test_every_line_is_there_once_whichever_driver_brought_it(open_tracker, runs, paths):
    write_lines(paths, [1, 2])
    first = open_tracker()
    assert flush(first)
    write_lines(paths, [3, 4])
    first.monitor_logged()
    first.monitor_logged()
    assert flush(first)
    first.close()
    assert runs.statuses()["study"] == "KILLED"
    write_lines(paths, [5])
    second = open_tracker()
    write_lines(paths, [6])
    second.monitor_logged()
    second.close("FINISHED")
    assert runs.steps("study", "system/cpu_utilization_percentage") == [1, 2, 3, 4, 5, 6]
    for name in SHOWN:
        assert runs.steps("study", name) == [3, 4, 5, 6]
    run = runs.by_key()["study"]
    assert set(run.data.metrics) == {*SHOWN, "system/cpu_utilization_percentage"}
    assert run.data.metrics["stream/images_per_s"] == 12.5
    (last,) = (
        point for point in runs.client.get_metric_history(run.info.run_id, "stream/waiting_s") if point.step == 6
    )
    assert (last.value, last.timestamp) == (1.5, int(1000 * (AT + 6)))
    assert not open_tracker.warnings


@pytest.mark.parametrize("machine", [True, False])
def test_sync_brings_the_lines_to_an_empty_store_and_a_second_time_changes_nothing(paths, runs, machine):
    write_lines(paths, range(1, 6), machine=machine)  # without the machine no metric is common to all of them
    uri, record = tracking_uri(paths, None), StudyRecord(identity="one", description=DESCRIPTION, states={})
    sync_study(paths, uri, record)
    assert runs.steps("study", "stream/waiting_s") == [3, 4, 5]
    assert runs.steps("study", "system/cpu_utilization_percentage") == ([1, 2, 3, 4, 5] if machine else [1, 2])
    before = runs.contents()
    assert sync_study(paths, uri, record) == NOTHING
    assert runs.contents() == before
    write_lines(paths, [6], machine=machine)
    assert sync_study(paths, uri, record) == NOTHING  # counted are runs, statuses and epochs of trials
    assert runs.steps("study", "stream/waiting_s") == [3, 4, 5, 6]


def test_the_parents_times_are_those_of_the_study_not_of_the_lines(paths, runs):
    write_lines(paths, [1, 2, 3])
    with Times.open(paths) as times:
        times.started(STUDY)
        times.ended(STUDY)
    for trial in (TRIAL, BASELINE):  # whose rows are of long ago
        shutil.rmtree(paths.trial(trial))
    summary = {"wall_s": 4.0, "trials": {}, "best": None, "baseline": None}
    paths.summary.write_text(json.dumps(summary))
    sync_study(paths, tracking_uri(paths, None), StudyRecord(identity="one", description=DESCRIPTION, states={}))
    info = runs.by_key()["study"].info
    noted = Times(paths).span(STUDY)
    assert (info.start_time, info.end_time) == (int(1000 * noted.started_at), int(1000 * noted.ended_at))


def test_lines_of_an_outage_follow_when_the_store_is_back(open_tracker, runs, paths, monkeypatch):
    tracker = open_tracker()
    assert flush(tracker)

    def down(*_, **__):
        raise MlflowException("no answer")

    with monkeypatch.context() as outage:
        outage.setattr(MlflowClient, "log_batch", down)
        outage.setattr(MlflowClient, "search_runs", down)
        for step in (1, 2, 3):
            write_lines(paths, [step])
            tracker.monitor_logged()
        assert not flush(tracker, 0.2)
    assert flush(tracker)
    assert runs.steps("study", "system/cpu_utilization_percentage") == [1, 2, 3]
    assert len(open_tracker.warnings) == 2 and open_tracker.warnings[1].endswith("is up to date again")


def test_a_driver_that_lost_its_study_brings_no_line(open_tracker, runs, paths):
    tracker = open_tracker()
    assert flush(tracker)
    tracker.abandon()
    write_lines(paths, [1])
    tracker.monitor_logged()
    assert flush(tracker, 0.2)
    assert "system/cpu_utilization_percentage" not in runs.by_key()["study"].data.metrics


def test_the_machine_is_measured_under_mlflows_own_names():
    machine = SystemMetrics()
    machine.measure()
    sum(range(10**7))  # work that shows in the CPU usage
    figures = machine.measure()
    assert figures["system/cpu_utilization_percentage"] > 0
    assert 0 < figures["system/system_memory_usage_percentage"] <= 100
    assert figures["system/system_memory_usage_megabytes"] > 100
    assert all(name.startswith("system/") and isinstance(value, float) for name, value in figures.items())
    again = machine.measure()
    assert again.keys() == figures.keys()
