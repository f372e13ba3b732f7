"""Running a study; running it again resumes it, and a finished one is left as it is.

    data set -> generator -> stream (servers + router) -> eKLD images -> trials (ledger, Tune) -> test -> summary

Each step is found in the store or the study's directory if an earlier run got that far.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayError
from rich.console import Console

from gitdist.compute import Compute
from gitdist.data.dataset import Dataset, prepare
from gitdist.errors import StudyError
from gitdist.generator.artefact import load_generator
from gitdist.generator.grid import sample_grid, save_grid
from gitdist.generator.training import TrainingStep
from gitdist.spec import StudySpec
from gitdist.store import Store, content_key
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig
from gitdist.study.cluster import check_address, connected, find_room
from gitdist.study.display import Display, open_display, show_training
from gitdist.study.driver import settle_spec, sole_driver
from gitdist.study.events import Observers
from gitdist.study.execution import run_trials
from gitdist.study.ledger import Ledger
from gitdist.study.paths import BASELINE, StudyPaths, TrialId
from gitdist.study.preparation import TrainedGenerator, obtain_generator
from gitdist.study.rows import RowsFile, read_rows
from gitdist.study.summary import baseline_is_whole, write_summary
from gitdist.study.tracking import Tracker, tracking_uri
from gitdist.study.worker import TrialContext, evaluate_on_test, run_trial
from gitdist.trial.evaluation import EkldRequest, ekld_set
from gitdist.trial.mixing import check_threshold

_SAMPLE_DRAWS = 8  # draws an image in the picture of the generator's samples


def run_study(spec: StudySpec, results: Path, console: Console, address: str | None = None) -> dict[str, Any]:
    """Run a study to its end and return its summary.

    Args:
        spec: the study.
        results: the results directory.
        console: where progress is shown.
        address: Ray cluster to join; None = ``$RAY_ADDRESS``, else a Ray of this machine for the study's time.

    Raises:
        GitdistError: the study cannot be run as asked.
    """
    check_address(address)
    paths = StudyPaths(results.resolve(), spec.name)
    store = Store(paths.store)
    paths.create()
    with sole_driver(paths), open_display(console, spec.trial.epochs, tuple(spec.search.space)) as display:
        dataset = prepare(spec.data, store)
        check_thresholds(spec, dataset)
        settle_spec(paths, spec)
        ledger = Ledger(paths.ledger, spec.name, spec.search)
        try:
            if paths.summary.exists() and not ledger.num_open() and baseline_is_whole(paths, spec):
                display.say(f"study '{spec.name}' is finished; nothing to do")
                finished: dict[str, Any] = json.loads(paths.summary.read_text())
                return finished
            return _StudyRun(spec, paths, store, dataset, ledger, display).run(address)
        finally:
            ledger.close()


def check_thresholds(spec: StudySpec, dataset: Dataset) -> None:
    """Refuse a study that can meet a threshold without meaning for its class sizes.

    Raises:
        SpecError: the soft threshold is used with a K that is not above the smallest class.
    """
    searched = spec.search.space
    kinds = searched["threshold_kind"].extremes if "threshold_kind" in searched else (spec.trial.threshold_kind,)
    thresholds = searched["threshold"].extremes if "threshold" in searched else (spec.trial.threshold,)
    for kind in kinds:
        for threshold in thresholds:
            check_threshold(threshold, kind, dataset.class_sizes)  # type: ignore[arg-type]


class _StudyRun:
    """One driver's run of one study."""

    def __init__(
        self, spec: StudySpec, paths: StudyPaths, store: Store, dataset: Dataset, ledger: Ledger, display: Display
    ) -> None:
        self._spec, self._paths, self._store = spec, paths, store
        self._dataset, self._ledger, self._display = dataset, ledger, display
        self._started = time.perf_counter()
        self._tracker = self._open_tracker()

    def run(self, address: str | None) -> dict[str, Any]:
        spec = self._spec
        self._display.say(_describe(spec, self._dataset))
        try:
            with connected(address, spec.resources, spec.stream.servers):
                room = find_room(spec.resources, spec.stream.servers)
                generator = self._obtain_generator()
                self._display.say(room.note)
                stream = self._launch_stream(generator)
                try:
                    context = self._context(stream, generator)
                    self._search(context, room.max_concurrent)
                    self._evaluate_chosen(context, stream, generator)
                finally:
                    self._account(stream, generator)
                    stream.shutdown()
            summary = write_summary(self._paths, spec, self._ledger.trials(), self._ledger.best())
        except BaseException as error:
            self._tracker.stopped("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self._tracker.study_ended(summary)
        return summary

    def _open_tracker(self) -> Tracker:
        determining = self._spec.model_dump(mode="json", exclude={"resources", "tracking"})
        tags = {"gitdist.spec": content_key("study", determining), "gitdist.data": self._dataset.fingerprint}
        uri = tracking_uri(self._paths, self._spec.tracking.uri)
        return Tracker(self._paths, uri, self._ledger.identity, tags, self._display.say)

    def _obtain_generator(self) -> TrainedGenerator:
        spec = self._spec.generator
        run_id = self._tracker.generator_started(spec.model_dump())

        def on_step(step: TrainingStep) -> None:
            show_training(self._display, step)
            self._tracker.generator_stepped(run_id, [step])

        generator = obtain_generator(spec, self._dataset, self._store, self._spec.resources.training, on_step)
        self._draw_samples(generator)
        name = generator.artefact.name if generator.artefact else spec.kind
        self._tracker.generator_ended(run_id, name, generator.past_steps, self._paths.samples)
        return generator

    def _draw_samples(self, generator: TrainedGenerator) -> None:
        dataset, spec = self._dataset, self._spec
        compute = Compute.resolve(spec.stream.precision, "cpu")
        loaded = load_generator(spec.generator, dataset.nuisance, dataset.image_shape, generator.artefact, compute)
        save_grid(sample_grid(loaded, dataset, 1, _SAMPLE_DRAWS, spec.stream.seed), self._paths.samples)

    def _launch_stream(self, generator: TrainedGenerator) -> StreamHandle:
        share = self._spec.resources.server
        config = ServerConfig(
            dataset=self._dataset.directory,
            generator=self._spec.generator,
            artefact=generator.artefact,
            stream=self._spec.stream,
            device=share.device,
        )
        return launch_stream(self._spec.name, config, share)

    def _search(self, context: TrialContext, max_concurrent: int) -> None:
        spec = self._spec

        def trainable(config: dict[str, Any]) -> None:
            run_trial(context, config)

        run_trials(
            trainable,
            self._ledger,
            Observers([self._display, self._tracker]),
            spec.resources.trial,
            objective=spec.search.objective,
            with_baseline=not baseline_is_whole(self._paths, spec),
            max_concurrent=max_concurrent,
        )

    def _evaluate_chosen(self, context: TrialContext, stream: StreamHandle, generator: TrainedGenerator) -> None:
        best = self._ledger.best()
        if best is None:
            reason = next((record.reason for record in self._ledger.trials() if record.reason), "no trial ended")
            raise StudyError(f"no trial of study '{self._spec.name}' finished; the first failed with: {reason}")
        chosen: dict[TrialId, Mapping[str, Any]] = {TrialId("trial", best.number): best.params}
        if baseline_is_whole(self._paths, self._spec):
            chosen[BASELINE] = {}
        self._display.say(f"best on validation: trial {best.number}; evaluating on test what was chosen")
        pairs = self._ekld_place("test", stream, generator)
        share = self._spec.resources.trial
        evaluate = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(evaluate_on_test)
        references = [evaluate.remote(context, trial, params, pairs) for trial, params in chosen.items()]
        for trial, result in zip(chosen, ray.get(references), strict=True):
            self._tracker.test_evaluated(trial, result["metrics"])

    def _account(self, stream: StreamHandle, generator: TrainedGenerator) -> None:
        """Add what this driver did to the study's books."""
        try:
            _, servers = stream.stats()
        except RayError:  # Ray itself is gone; the cause is on its way to the user already
            return
        figures = {
            "wall_s": time.perf_counter() - self._started,
            "generated_images": sum(server.done.images for server in servers),
            "generating_s": sum(server.done.generating_s for server in servers),
            "generator_training_s": generator.training_s,
        }
        RowsFile(self._paths.drivers, read_rows(self._paths.drivers)).append(figures)

    def _context(self, stream: StreamHandle, generator: TrainedGenerator) -> TrialContext:
        return TrialContext(
            spec=self._spec,
            results=self._paths.results,
            dataset=self._dataset.directory,
            validation_ekld=self._ekld_place("validation", stream, generator),
            router=stream.router_name,
        )

    def _ekld_place(
        self, split: Literal["validation", "test"], stream: StreamHandle, generator: TrainedGenerator
    ) -> Path:
        evaluation, known = self._spec.evaluation, self._dataset.nuisance != "none"
        final = split == "test"
        request = EkldRequest(
            split=split,
            images_per_class=evaluation.final_images_per_class if final else evaluation.epoch_images_per_class,
            transformations=evaluation.final_transformations if final else evaluation.epoch_transformations,
            seed=evaluation.seed,
            under="nuisance" if known else "generator",
            key={} if known else self._generator_key(generator),
        )
        return ekld_set(self._dataset, request, self._store, stream.transform).directory

    def _generator_key(self, generator: TrainedGenerator) -> dict[str, Any]:
        artefact = generator.artefact.name if generator.artefact else None
        compute = Compute.resolve(self._spec.stream.precision, self._spec.resources.server.device)
        return {
            "kind": self._spec.generator.kind,
            "artefact": artefact,
            "seed": self._spec.stream.seed,
            "precision": compute.precision,
        }


def _describe(spec: StudySpec, dataset: Dataset) -> str:
    sizes = dataset.class_sizes
    return (
        f"study '{spec.name}': {spec.data.source}, nuisance {spec.data.nuisance}, {dataset.num_classes} classes of "
        f"{sizes.max()} to {sizes.min()} images, {sizes.sum()} in all"
    )
