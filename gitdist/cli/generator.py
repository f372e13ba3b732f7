"""``gitdist generator train | preview | import``: work with a generator without running its study."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console

from gitdist.cli.console import print_line
from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute, set_threads
from gitdist.disk import real_path
from gitdist.errors import StudyError
from gitdist.generator.base import Generator
from gitdist.generator.grid import sample_grid, save_grid
from gitdist.generator.kinds import find_artifact, needs_training, obtain_artifact, open_generator
from gitdist.generator.oracle import OracleGenerator
from gitdist.generator.pretrained import read_checkpoint, save_pretrained
from gitdist.logging import logging_to
from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.cluster.connect import cluster_nodes, connected
from gitdist.study.cluster.signals import STOPPED, stop_requested
from gitdist.study.files.layout import StudyPaths, open_store
from gitdist.study.monitoring.display import open_display
from gitdist.study.resources.generator_training import obtain_generator
from gitdist.study.scheduling.gpu_shares import share_gpus


def train_generator(spec: StudySpec, results: Path, console: Console, address: str | None) -> None:
    """Train the study's generator and store it, unless the store has it.

    Raises:
        StudyError: the study's generator has nothing to train, or training diverged.
    """
    if not needs_training(spec.generator):
        raise StudyError(f"generator.kind '{spec.generator.kind}' has nothing to train; preview shows what it draws")
    paths = StudyPaths.at(results, spec.name)
    store = open_store(paths, spec)
    dataset = prepare(spec.data, store)
    with (
        open_display(console) as display,
        logging_to(paths.root / paths.library_log.name, display.log),
        connected(address, spec.resources, 0, _exit_after_ray_death),
    ):

        def on_wait(waited_s: float) -> None:
            display.log(f"waiting for capacity for training the generator, since {waited_s:.0f} s")

        resources = share_gpus(cluster_nodes(), spec.resources, num_servers=0, num_trials=0)
        trained = obtain_generator(spec.generator, dataset, store, resources, display.training_step, on_wait)
        origin = "found in the store" if trained.training_s == 0 else f"trained in {trained.training_s:.0f} s"
        display.log(f"generator {origin}: {trained.artifact}")


def _exit_after_ray_death(started_here: bool, cause: str) -> NoReturn:
    if stop_requested():  # Ray may have been stopped together with this process
        os._exit(STOPPED)
    event = "Ray on this machine has died" if started_here else "the head of the Ray cluster no longer answers"
    resume = "run the same command again, which resumes the training from its last checkpoint"
    print(f"error: {event} ({cause}); {resume}", file=sys.stderr, flush=True)
    os._exit(1)


def preview_generator(
    spec: StudySpec, results: Path, console: Console, *, out: Path, images: int, draws: int, truth: bool
) -> None:
    """Write a grid of training images and draws from them to a PNG file.

    Raises:
        StudyError: the generator is not trained yet, the picture cannot be written, or there is no nuisance to show.
    """
    set_threads(torch.get_num_threads())
    with open_ready(spec, results) as (dataset, _, generator):
        if truth and dataset.nuisance == "none":
            raise StudyError("--truth shows draws of the data set's nuisance, but data.nuisance is 'none'; omit it")
        oracle = OracleGenerator(dataset.nuisance) if truth else None
        grid = sample_grid(generator, dataset, images, draws, spec.stream.seed, oracle)
    try:
        save_grid(grid, out)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"the picture cannot be written to {out} ({error}); choose another path with --out FILE.png"
        ) from None
    beside = f"; the image before the nuisance, then {draws} draws of the true nuisance" if truth else ""
    print_line(console, f"{out}: one row per image; the training image, then {draws} draws of the generator{beside}")


def import_generator(checkpoint: Path, out: Path, console: Console) -> None:
    """Write the generator in a published checkpoint to a file that ``generator.path`` can name."""
    architecture, weights = read_checkpoint(checkpoint)
    try:
        save_pretrained(out, architecture, weights)
    except OSError as error:
        raise StudyError(f"{out} cannot be written ({error}); choose another path with --out") from None
    use = f"generator: {{kind: pretrained, path: {real_path(out)}}}"
    print_line(console, f"{out}: {architecture.describe()}; use it with {use}")


@contextmanager
def open_ready(spec: StudySpec, results: Path) -> Iterator[tuple[Dataset, Store, Generator]]:
    """Yield a study's data set, its store and its generator, ready to draw.

    Raises:
        StudyError: it is not trained yet.
        SpecError: an imported file or a plugin cannot be read.
    """
    store = open_store(StudyPaths.at(results, spec.name), spec)
    dataset = prepare(spec.data, store)
    compute = Compute.resolve(spec.stream.precision)
    if needs_training(spec.generator):
        artifact = find_artifact(spec.generator, dataset, store, compute)
        if artifact is None:
            raise StudyError(
                f"the generator of study '{spec.name}' is not in {store.root} yet; run the study, or train the "
                "generator alone with `gitdist generator train`"
            )
    else:
        artifact = obtain_artifact(spec.generator, dataset, store, lambda step: None, compute)
    with open_generator(spec.generator, dataset, artifact, compute) as generator:
        yield dataset, store, generator
