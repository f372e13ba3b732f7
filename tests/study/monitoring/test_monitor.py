import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from gitdist.data.dataset import prepare
from gitdist.disk import write_atomic
from gitdist.spec import DataSpec, OracleSpec, Share, StreamSpec
from gitdist.store import Store
from gitdist.store.file_tree import FileTree
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig
from gitdist.study.files.json_lines import read_lines
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.results import ObjectStoreResults
from gitdist.study.files.rows import open_rows
from gitdist.study.monitoring.display import open_display
from gitdist.study.monitoring.latest import describe_stream, newest_line
from gitdist.study.monitoring.monitor import Monitor, StreamWaitTotal, pause_after
from tests.epoch_rows import epoch_row
from tests.stream.streams import connected, keys_of
from tests.study.small_study import SmallStudy
from tests.waiting import until

TRIAL = TrialId("trial", 0)
LINE = {
    "stream/images_per_s": 1234.5,
    "stream/window_blocks": 310,
    "stream/window_capacity": 2048,
    "stream/server_utilisation": 0.873,
    "stream/servers": 2,
    "stream/servers_answering": 2,
    "stream/waiting_s": 3.44,
}
TOLD = (
    "1,234 images/s, 310 of 2,048 blocks in the window, servers generate 87 % of the time, trials waited 3.4 s in total"
)


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    return paths


def open_monitor(
    paths: StudyPaths, told: list[str], machine: Callable[[], dict[str, float]] = lambda: {"system/x": 1.0}
):
    return Monitor(paths, StreamWaitTotal(paths), machine, told.append, lambda: told.append("written"), period_s=0.05)


def test_the_figures_read_as_one_line() -> None:
    assert describe_stream(LINE) == TOLD
    assert describe_stream({**LINE, "stream/servers_answering": 1}).startswith("1,234 images/s (1 of 2 servers answer)")
    assert describe_stream({"system/cpu_utilization_percentage": 50.0}) == ""


def test_waiting_counts_each_epoch_once_and_none_of_another_trials(paths: StudyPaths) -> None:
    paths.identity.write_text("5f0c9a31ee")
    own, others = "study-5f0c9a31/0", "study-5f0c9a31/7"
    rows = [
        epoch_row(1, waiting_s=100.0, trained_by=others),
        epoch_row(2, waiting_s=2.0, trained_by=own),
        epoch_row(3, waiting_s=3.0),  # of a study that an early gitdist began
    ]
    paths.trial(TRIAL).mkdir(parents=True)
    open_rows(paths.rows(TRIAL), rows).close()
    stream_wait = StreamWaitTotal(paths, [TRIAL, BASELINE])
    assert stream_wait.total_s == 5.0
    stream_wait.epoch_ended(TRIAL, replace(rows[2], waiting_s=3.5))  # again, after an interruption
    stream_wait.epoch_ended(TRIAL, rows[0])
    stream_wait.epoch_ended(BASELINE, epoch_row(waiting_s=0.25))
    assert stream_wait.total_s == 5.75


def test_the_file_grows_by_every_look_at_first_and_by_one_a_minute_later() -> None:
    assert pause_after(100.0) <= 10.0 < pause_after(600.0) < pause_after(1200.0) == pause_after(10.0**6) == 60.0


def test_lines_go_on_where_an_earlier_driver_was_killed(paths: StudyPaths) -> None:
    whole = json.dumps({"step": 3, "at": 1.0, "system/x": 1.0})
    paths.monitor_log.write_text(f'{whole}\n{{"step": 4, "at"')
    told: list[str] = []
    with open_monitor(paths, told):
        until(lambda: len(read_lines(paths.monitor_log)) >= 3)
    lines = read_lines(paths.monitor_log)
    assert [line["step"] for line in lines] == list(range(3, 3 + len(lines)))
    assert told == ["written"] * (len(lines) - 1)  # nothing is said of a stream that is not there


def test_lines_are_on_the_object_store_before_they_are_told_and_another_machine_goes_on(object_store) -> None:
    there = FileTree.of_uri(object_store.uri)
    first, second = (StudyPaths.at(ObjectStoreResults(object_store.uri), "study") for _ in range(2))
    first.create()
    seen: list[int] = []

    def written() -> None:
        seen.append(len((there.read("study/watch.jsonl") or b"").splitlines()))

    machine = {"system/x": 1.0}
    with Monitor(first, StreamWaitTotal(first), lambda: machine, lambda line: None, written, period_s=0.05):
        until(lambda: len(seen) >= 2)
    assert seen == list(range(1, len(seen) + 1))
    second.pull()  # the first one may have been killed
    with open_monitor(second, []):
        until(lambda: len(read_lines(second.monitor_log)) >= len(seen) + 2)
    steps = [line["step"] for line in read_lines(second.monitor_log)]
    assert steps == list(range(1, len(steps) + 1))


def test_a_superseded_driver_writes_into_no_file_of_its_successor(paths: StudyPaths) -> None:
    with open_monitor(paths, []):
        until(lambda: read_lines(paths.monitor_log))
        with open_monitor(paths, []):
            until(lambda: len(read_lines(paths.monitor_log)) >= 4)
        steps = [line["step"] for line in read_lines(paths.monitor_log)]
    assert steps == list(range(1, len(steps) + 1))


def test_what_keeps_it_from_seeing_is_told_and_ends_nothing(paths: StudyPaths) -> None:
    told: list[str] = []

    def machine() -> dict[str, float]:
        assert threading.current_thread().name == "gitdist-monitor"  # its processors' figure is of one thread's calls
        if len(told) < 2:
            raise OSError("no /proc here")
        return {"system/x": 1.0}

    with open_monitor(paths, told, machine):
        until(lambda: read_lines(paths.monitor_log))
    assert told[:2] == ["monitoring failed (no /proc here)"] * 2 and told[2] == "written"


def test_a_look_that_hangs_keeps_no_study_from_ending(paths: StudyPaths, monkeypatch) -> None:
    class Hanging:
        def poll(self, wait_s: float) -> None:
            never.wait()

    monkeypatch.setattr("gitdist.study.monitoring.monitor._LAST_S", 0.2)
    never = threading.Event()
    started = time.monotonic()
    with open_monitor(paths, []) as monitor, monitor.following(Hanging()):
        pass
    assert time.monotonic() - started < 10
    never.set()
    monitor._thread.join()


def test_only_a_fresh_and_whole_line_is_shown_as_the_newest(paths: StudyPaths) -> None:
    assert newest_line(paths.monitor_log) is None
    now = time.time()
    lines = [json.dumps({"step": step, "at": now - age_s, **LINE}) for step, age_s in ((1, 30), (2, 20))]
    write_atomic(paths.monitor_log, ("x" * 10_000 + "\n" + "\n".join([*lines, '{"step": 3']) + "\n").encode())
    newest = newest_line(paths.monitor_log)
    assert newest is not None and newest["step"] == 2 and describe_stream(newest) == TOLD
    write_atomic(paths.monitor_log, json.dumps({"step": 1, "at": now - 3600}).encode())
    assert newest_line(paths.monitor_log) is None


def test_a_log_has_the_line_once_a_minute() -> None:
    console = Console(file=io.StringIO(), width=160)
    with open_display(console) as display:
        display.stream(TOLD)
        display.stream("2 images/s")
    shown = console.file.getvalue()
    assert f"stream: {TOLD}" in shown and "2 images/s" not in shown


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_stream_is_monitored_through_the_death_of_a_server(paths: StudyPaths, tmp_path: Path) -> None:
    dataset = prepare(DataSpec(source="digits", nuisance="background"), Store(tmp_path / "store"))
    stream = StreamSpec.model_validate({"block_size": 20})
    config = ServerConfig(dataset=dataset.directory, generator=OracleSpec(), artifact=None, stream=stream)
    told: list[str] = []
    with launch_stream("watched", config, Share(cpu=0.5), 2) as handle, open_monitor(paths, told) as monitor:
        with connected(handle) as client, monitor.following(handle.stats_poller()):
            client.get(keys_of(range(10), range(2)))
            until(lambda: any(line.startswith("0 images/s, 20 of") for line in told))
            pids = [server.pid for server in handle.stats()[1]]
            os.kill(pids[0], signal.SIGKILL)
            assert len(client.get(keys_of(range(10), range(2, 4)))) == 20  # no trial waits for the monitor
            until(lambda: [server.pid for server in handle.stats()[1]] != pids)
            seen = len(told)
            until(lambda: len(told) > seen + 5)
        _check_last(read_lines(paths.monitor_log)[-1], handle)
        until(lambda: "stream/images_per_s" not in read_lines(paths.monitor_log)[-1])  # its stream has ended
    assert not any("monitoring failed" in line for line in told)
    assert not [thread for thread in threading.enumerate() if thread.name == "gitdist-monitor"]


def _check_last(line: dict[str, Any], handle: StreamHandle) -> None:
    """Assert that the last line of a stream equals the figures of its router, which is idle by now."""
    router = ray.get(ray.get_actor(handle.router_name).stats.remote())
    assert line["stream/window_blocks"] == router.kept and line["stream/window_capacity"] == router.capacity
    assert 20 < router.kept <= 40  # those of the killed server that it was still to make may have been given up
    assert line["stream/servers"] == 2 and line["stream/waiting_s"] == 0.0


@pytest.mark.ray
def test_a_study_leaves_its_figures_in_its_file_and_in_mlflow(undisturbed: SmallStudy) -> None:
    lines = read_lines(undisturbed.directory / "watch.jsonl")
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    last = next(line for line in reversed(lines) if "stream/images_per_s" in line)
    summary = json.loads((undisturbed.directory / "summary.json").read_text())
    assert last["stream/waiting_s"] == pytest.approx(summary["waiting_s"], abs=1e-3)
    (run,) = (run for run in undisturbed.runs() if run.data.tags["gitdist.role"] == "study")
    client = undisturbed.mlflow()
    for name in ("stream/window_blocks", "stream/waiting_s", "system/cpu_utilization_percentage"):
        logged = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert sorted(logged) == [(line["step"], line[name]) for line in lines if name in line]
    assert run.info.end_time >= 1000 * last["at"]
