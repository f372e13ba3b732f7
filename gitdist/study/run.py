"""Runs a study. A second run resumes it, or does nothing if the study is finished.

    prepare (spec, data, ledger) -> lease -> check and repair -> connect (Ray) -> generator -> stream (servers,
    router, eKLD images) -> search (trials) -> final evaluation (test) -> summary

Each phase reuses what an earlier driver has left in the store, the ledger or the study's directory. Only one driver at
a time owns the lease.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from gitdist.logging import logging_to, silence_libraries
from gitdist.spec import StudySpec
from gitdist.study.capacity import estimate_capacity, join_cluster, measure_capacity
from gitdist.study.cluster.connect import check_address, connected
from gitdist.study.cluster.signals import discard_lost_output, interruptible, stop_requested
from gitdist.study.data_fit import describe_study
from gitdist.study.duration import announce_duration
from gitdist.study.files.results import Results
from gitdist.study.final_evaluation import evaluate_chosen
from gitdist.study.ledger.lease import Lease
from gitdist.study.monitoring.display import open_display
from gitdist.study.prepare import check_and_repair, open_files, prepare_data
from gitdist.study.resources.generator import train_study_generator
from gitdist.study.resources.stream import launch_resources
from gitdist.study.running_study import RunningStudy, RunOptions, finish_study, open_monitor, start_study
from gitdist.study.search import restore_lost_epochs, search
from gitdist.study.status import search_notes, study_notes
from gitdist.study.study import Study
from gitdist.study.study_record import complete_mlflow
from gitdist.study.summary import is_finished, read_summary, remove_summary, write_summary

_FINAL_MLFLOW_S = 5.0  # for MLflow to write the last statuses after Ray has died


def run_study(
    spec: StudySpec, results: Path | Results, console: Console, options: RunOptions | None = None
) -> dict[str, Any]:
    """Run a study until it is finished and return its summary.

    Args:
        spec: the study.
        results: the results directory, or the results on an object store.
        console: where progress is shown.
        options: how to run it.

    Raises:
        GitdistError: the study cannot run, or stopped early; in the latter case the same call resumes it.
        KeyboardInterrupt: the user stopped it; the same call resumes it.
    """
    silence_libraries()
    options = options or RunOptions()
    check_address(options.address)
    paths, store = open_files(spec, results)
    with (
        open_display(console) as display,
        logging_to(paths.library_log, display.log),
    ):
        dataset, weights = prepare_data(paths, spec, store)
        if not (paths.spec.exists() or paths.stored_trials()):  # the study has not begun
            announce_duration(spec, dataset, store, options.address, display, options.confirm)
        with (
            Study.create(paths, spec) as study,
            Lease.claim(study.ledger.storage, spec.name, take_over=options.take_over) as lease,
        ):
            study.ledger.wait_for_outages(lease.check)
            identity = check_and_repair(study, dataset, weights, retry_failed=options.retry_failed, log=display.log)
            if is_finished(study):
                complete_mlflow(study, display.log)
                for line in (f"study '{spec.name}' is finished; nothing to do", *search_notes(study)):
                    display.log(line)
                return read_summary(paths) or {}
            remove_summary(paths)  # the study was extended since
            for line in (*describe_study(spec, dataset), *dataset.notes):
                display.log(line)
            with (
                store.pin_used(spec.name),
                interruptible(),
                start_study(study, store, dataset, weights, lease, identity, display, options) as running,
            ):
                summary = _run_phases(running, options)
                finish_study(running, summary)
                return summary


def _run_phases(running: RunningStudy, options: RunOptions) -> dict[str, Any]:
    study, spec = running.study, running.spec
    num_servers = spec.num_servers

    on_death = None
    if options.on_ray_death is not None:
        on_death = partial(_end_after_ray_death, running, options.on_ray_death)
    with (
        connected(options.address, spec.resources, num_servers, on_death) as cpus,
        open_monitor(running) as monitor,
    ):
        running = join_cluster(running, num_servers, cpus)
        if not spec.search.total:
            train_study_generator(running)
            return write_summary(study)
        expected = estimate_capacity(running, num_servers, cpus)
        generator = train_study_generator(running)
        with launch_resources(running, generator) as resources, monitor.following(resources.stats_poller()):
            max_concurrent = measure_capacity(running, resources, expected, cpus)
            context = resources.context()
            search(running, context, resources, max_concurrent)
            restore_lost_epochs(running, context, max_concurrent)
            running.lease.check()
            evaluate_chosen(running, context, resources.ekld_images("test"), max_concurrent)
            resources.record_usage(final=True)
    running.lease.check()
    study.paths.push(study.paths.monitor_log)
    for line in study_notes(study):
        running.display.log(line)
    return write_summary(study)


def _end_after_ray_death(
    running: RunningStudy, end: Callable[[bool, bool], None], started_here: bool, cause: str
) -> None:
    """Record the end in files and MLflow, on the watchdog's thread; the main thread may be blocked forever."""
    discard_lost_output()
    if not stop_requested():  # else Ray may have been stopped together with this process
        event = "Ray on this machine has died" if started_here else "the head of the Ray cluster no longer answers"
        running.display.log(f"{event} ({cause}); running trials resume from their checkpoints")
    running.display.__exit__(None, None, None)
    running.close("KILLED", _FINAL_MLFLOW_S)
    running.lease.release()
    end(started_here, running.progress.any_epoch)
