"""One driver's session with a study: whatever of it is still to be done.

    generator -> stream (servers + router) -> eKLD images -> trials (course, Tune) -> test -> summary

Each step is found in the store, the ledger or the study's directory if an earlier session got that far. Whatever ends
the session, the tracking store is told how things stand; the lease and the ledger are closed by the caller.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import DiskError, GitdistError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.generator.grid import sample_grid, save_grid
from gitdist.generator.kinds import generator_name, load_generator
from gitdist.spec import StudySpec
from gitdist.study.cluster.connect import cluster_nodes, connected, living_nodes
from gitdist.study.cluster.shared_fs import check_mounts
from gitdist.study.cluster.signals import interruptible
from gitdist.study.files.events import Observers, Outcome, Progress, TrialStates
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.times import STUDY, Times
from gitdist.study.ledger.ledger import TrialRecord
from gitdist.study.ledger.repeats import Repeats
from gitdist.study.ledger.space import point_plan, untried
from gitdist.study.ledger.trial_states import (
    GENERATOR,
    baseline_is_settled,
    baseline_is_whole,
    lost_epochs,
    trial_states,
)
from gitdist.study.monitoring.display import show_training
from gitdist.study.monitoring.mlflow.content import Status
from gitdist.study.monitoring.mlflow.parent_run import study_status
from gitdist.study.monitoring.mlflow.system_metrics import Machine
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.monitoring.monitor import Waiting, Watch
from gitdist.study.monitoring.result_copies import Copies
from gitdist.study.notes import study_notes
from gitdist.study.resources.generator import TrainedGenerator, keep_precision, obtain_generator, settle_generator
from gitdist.study.resources.stream import OwnedStudy, StreamResources, supplied
from gitdist.study.scheduling.packing import Room, capacity_beside, check_fits_alone, find_capacity
from gitdist.study.scheduling.tasks import completed
from gitdist.study.scheduling.trial_manager import TrialManager
from gitdist.study.scheduling.tune_adapter import run_trials
from gitdist.study.study_record import study_tags
from gitdist.study.summary import write_summary
from gitdist.study.worker.context import TrialContext
from gitdist.study.worker.trial_task import complete_trial, evaluate_on_test, run_trial

_SAMPLE_DRAWS = 8  # draws an image in the picture of the generator's samples
_LAST_WORDS_S = 5.0  # for the tracking store, where Ray has died


class StudySession:
    """Runs what is left of a study."""

    def __init__(self, study: OwnedStudy, on_ray_death: Callable[[bool, bool], None] | None = None) -> None:
        """Take a study that this process owns; ``on_ray_death`` is that of ``RunOptions``."""
        self._study, self._on_ray_death = study, on_ray_death
        self._spec, self._paths, self._store = study.spec, study.paths, study.store
        self._dataset, self._ledger, self._display = study.dataset, study.ledger, study.display
        self._progress = Progress()

    def run(self, address: str | None) -> dict[str, Any]:
        """Do what is left and return the study's summary."""
        for line in (_describe(self._spec, self._dataset), *self._dataset.notes):
            self._display.say(line)
        with interruptible(), Times.open(self._paths) as self._times:
            self._times.started(STUDY)
            states = trial_states(self._paths, self._spec, self._ledger)
            self._tracker = self._open_tracker(states)
            self._waiting = Waiting(self._paths, states)
            try:
                summary = self._work(address)
                self._times.ended(STUDY)
                self._tracker.study_ended(summary)
                return summary
            finally:
                if self._is_owner():
                    self._note_end()
                    self._tracker.close(self._unfinished())
                else:
                    self._tracker.abandon()  # what is true is the new owner's to tell

    def _work(self, address: str | None) -> dict[str, Any]:
        spec = self._spec
        num_servers = spec.resources.servers if spec.sharing.stream else 0
        with connected(address, spec.resources, num_servers, self._ray_died), self._watch() as watch:
            check_mounts(living_nodes(), spec.resources, self._paths)
            if not spec.search.total:
                self._obtain_generator()
                return write_summary(self._paths, spec, self._ledger)
            expected = self._expect_room(num_servers)
            generator = self._obtain_generator()
            with supplied(self._study, generator) as supply, watch.following(supply.lookout()):
                at_once = self._settle_room(supply, expected).max_concurrent
                context = supply.context()
                self._search(context, supply, at_once)
                self._complete(context, at_once)
                self._study.lease.check()
                self._evaluate_chosen(context, supply.ekld_place("test"), at_once)
                supply.close_account()
        self._study.lease.check()
        self._paths.publish(self._paths.watch)
        for line in study_notes(self._paths, spec, self._ledger):
            self._display.say(line)
        return write_summary(self._paths, spec, self._ledger)

    def _watch(self) -> Watch:
        return Watch(self._paths, self._waiting, Machine().figures, self._display.stream, self._tracker.watched)

    def _open_tracker(self, states: TrialStates) -> Tracker:
        study = self._study
        tags = study_tags(study.spec, study.dataset.fingerprint)
        uri = tracking_uri(study.paths, study.spec.tracking.uri)
        tracker = Tracker(study.paths, uri, study.identity, tags, study.display.say, study.lease.check, self._times)
        tracker.reconcile(states)
        return tracker

    def _unfinished(self) -> Status:
        """Return the parent run's status where the study has not come to its end."""
        with suppress(Exception):  # whatever it is, it must not hide what ended the session
            states = trial_states(self._paths, self._spec, self._ledger)
            return study_status(states, self._ledger.num_open(), finished=False)
        return "KILLED"  # the ledger is gone

    def _note_end(self) -> None:
        if self._times.span(STUDY).ended_at is None:
            with suppress(GitdistError):  # whatever ended the session may be a full disk
                self._times.ended(STUDY)

    def _is_owner(self) -> bool:
        with suppress(StudyError):
            self._study.lease.check()
        return not self._study.lease.lost

    def _ray_died(self, started_here: bool) -> None:
        """Leave everything as it should be found, on the watchdog's thread; the main one may be blocked for good."""
        what = (
            "Ray on this machine has died" if started_here else "the head of the Ray cluster does not answer any more"
        )
        self._display.say(f"{what} (killed, or out of memory); what ran goes on from its checkpoints")
        self._display.__exit__(None, None, None)
        self._note_end()
        self._tracker.close("KILLED", patience_s=_LAST_WORDS_S)
        self._study.lease.release()
        if self._on_ray_death:
            self._on_ray_death(started_here, self._progress.made)
        os._exit(1)

    def _expect_room(self, num_servers: int) -> Room:
        """Say what the study gets of the cluster, or refuse it, before anything runs."""
        nodes, resources = cluster_nodes(), self._spec.resources
        room = find_capacity(nodes, resources, num_servers)
        if not num_servers and self._dataset.nuisance == "none":
            check_fits_alone(nodes, resources, "server", "transform the images that eKLD is measured on")
        self._display.say(room.note)
        return room

    def _settle_room(self, supply: StreamResources, expected: Room) -> Room:
        """Count the room again now that the servers have their nodes, and say it where it is other than expected."""
        nodes, servers = living_nodes(), supply.server_nodes()
        if not servers:
            return expected
        names = [node.offers.name for server in servers for node in nodes if node.id == server]
        room = capacity_beside([node.offers for node in nodes], self._spec.resources, names)
        if room != expected:
            self._display.say(room.note)
        return room

    def _obtain_generator(self) -> TrainedGenerator:
        spec, known = self._spec.generator, self._ledger.recall(GENERATOR)
        if known is None:  # else its run ended with an earlier driver
            self._times.started(GENERATOR)
        self._tracker.generator_started(spec.model_dump())

        def on_step(step: TrainingStep) -> None:
            self._study.lease.check()
            show_training(self._display, step)
            self._tracker.generator_stepped([step])

        try:
            spec = keep_precision(spec, self._dataset.fingerprint, known)
            on_wait = partial(self._study.tell_of_wait, "the generator's training")
            generator = obtain_generator(spec, self._dataset, self._store, self._spec.resources, on_step, on_wait)
            name = generator_name(spec, generator.artefact)
            settle_generator(spec, name, known)
            self._draw_samples(generator)
        except DiskError:
            raise
        except (GitdistError, RayTaskError):
            if known is None:
                self._times.ended(GENERATOR)
            self._tracker.generator_failed()
            raise
        if known is None:
            self._times.ended(GENERATOR)
        self._ledger.remember(GENERATOR, name)
        self._tracker.generator_ended(name, generator.past_steps, self._paths.samples)
        return generator

    def _draw_samples(self, generator: TrainedGenerator) -> None:
        dataset, spec = self._dataset, self._spec
        compute = Compute.resolve(spec.stream.precision, "cpu")
        loaded = load_generator(spec.generator, dataset, generator.artefact, compute)
        save_grid(sample_grid(loaded, dataset, 1, _SAMPLE_DRAWS, spec.stream.seed), self._paths.samples)
        self._paths.publish(self._paths.samples)

    def _search(self, context: TrialContext, supply: StreamResources, max_concurrent: int) -> None:
        spec, ledger = self._spec, self._ledger
        with_baseline = not baseline_is_settled(self._paths, spec, ledger)
        if not (with_baseline or ledger.num_open()):
            return
        copies, watchers = Copies(self._paths), (self._display, self._tracker, self._progress, self._waiting, supply)
        course = TrialManager(
            ledger,
            Observers([copies, self._times, *watchers]),
            spec,
            with_baseline=with_baseline,
            check_owner=self._study.lease.check,
            link=Repeats(spec, self._dataset.class_sizes).link,
        )

        def trainable(config: dict[str, Any]) -> None:
            run_trial(context, config)

        def stop() -> None:
            course.stop()
            # A signal's handler must not print: it may have come in the middle of printing.
            told = "stopping after the epochs under way; Ctrl-C again stops now"
            threading.Thread(target=self._display.say, args=[told]).start()

        with interruptible(stop):
            run_trials(trainable, course, spec.resources, max_concurrent)
        if course.trouble:
            raise course.trouble
        if course.stopping:
            raise KeyboardInterrupt

    def _complete(self, context: TrialContext, at_once: int) -> None:
        """Train again what damage took from finished trials; evaluation and summary read all of their epochs."""
        spec, share = self._spec, self._spec.resources.trial
        complete = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(complete_trial)
        damaged: dict[TrialId, TrialRecord] = {}
        for record in self._ledger.trials():
            if lost := lost_epochs(self._paths, spec, record):
                self._display.say(f"trial {record.number} has lost {lost} of its rows; training these epochs again")
                damaged[TrialId("trial", record.number)] = record

        def submit(trial: TrialId) -> Any:
            return complete.remote(context, trial, damaged[trial].params, damaged[trial].links)

        for trial in completed(submit, damaged, at_once, "train the lost epochs of trial {}", self._study.lease.check):
            self._paths.refresh(trial)
            self._tracker.trial_ended(trial, Outcome("finished"))

    def _evaluate_chosen(self, context: TrialContext, pairs: Path, at_once: int) -> None:
        best = self._ledger.pareto()
        if not best:
            raise StudyError(self._nothing_finished())
        every = self._spec.evaluation.test == "all"
        records = [record for record in self._ledger.trials() if record.state == "finished"] if every else best
        chosen: dict[TrialId, Mapping[str, Any]] = {
            TrialId("trial", record.number): record.params for record in records
        }
        told = "best on validation" if len(best) == 1 else "no other is better on validation than any of"
        numbers = ", ".join(str(record.number) for record in best)
        what = "all trials" if every else "what was chosen"
        self._display.say(f"{told}: trial {numbers}; evaluating on test {what}")
        if baseline_is_whole(self._paths, self._spec):
            chosen[BASELINE] = {}
        share = self._spec.resources.trial
        evaluate = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(evaluate_on_test)

        def submit(trial: TrialId) -> Any:
            return evaluate.remote(context, trial, chosen[trial], pairs)

        for trial in completed(submit, chosen, at_once, "evaluate trial {} on test", self._study.lease.check):
            self._paths.refresh(trial)
            self._tracker.test_evaluated(trial)

    def _nothing_finished(self) -> str:
        name, results = self._spec.name, self._paths.place
        reason = next((record.reason for record in self._ledger.trials() if record.reason), None)
        if reason is None:
            return f"every trial of study '{name}' was pruned; raise search.pruner.min_epochs in another study (--fork)"
        return (
            f"no trial of study '{name}' finished; the first failed with: {reason}; mend the cause, then: "
            f"gitdist retry {name} --failed --results {results}"
        )


def _describe(spec: StudySpec, dataset: Dataset) -> str:
    sizes = dataset.class_sizes
    described = (
        f"study '{spec.name}': {spec.data.source}, nuisance {spec.data.nuisance}, {dataset.num_classes} classes of "
        f"{sizes.max()} to {sizes.min()} images, {sizes.sum()} in all"
    )
    left_out, plan = untried(spec.search), point_plan(spec.search)
    if left_out:
        return f"{described}\nsearch.total leaves out {left_out} points of the grid"
    if plan is not None and len(plan) < spec.search.total:
        what = "the grid" if spec.search.algorithm == "grid" else "the search space"
        points = "1 point" if len(plan) == 1 else f"{len(plan)} points"
        return f"{described}\nsearch.total is {spec.search.total}, but {what} has {points}: each is tried once"
    return described
