"""``gitdist generator train | preview``: the generator alone, outside a study's run."""

from functools import partial
from pathlib import Path

from rich.console import Console

from gitdist.compute import Compute
from gitdist.data.dataset import Dataset, prepare
from gitdist.errors import StudyError
from gitdist.generator.artefact import find_generator, generator_artefact, load_generator, trains
from gitdist.generator.base import Generator
from gitdist.generator.grid import sample_grid, save_grid
from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.cluster import connected
from gitdist.study.display import open_display, show_training
from gitdist.study.paths import StudyPaths, open_store
from gitdist.study.preparation import obtain_generator


def train_generator(spec: StudySpec, results: Path, console: Console, address: str | None) -> None:
    """Train the study's generator into the store, or find it there.

    Raises:
        StudyError: the study's generator has nothing to train, or training diverged.
    """
    if not trains(spec.generator):
        raise StudyError(f"generator.kind '{spec.generator.kind}' has no weights to train; preview shows what it draws")
    store = open_store(StudyPaths(results.resolve(), spec.name), spec)
    dataset = prepare(spec.data, store)
    with open_display(console, 0, ()) as display, connected(address, spec.resources, 0):
        show = partial(show_training, display)
        trained = obtain_generator(spec.generator, dataset, store, spec.resources.training, show)
        how = "found in the store" if trained.training_s == 0 else f"trained in {trained.training_s:.0f} s"
        display.say(f"generator {how}: {trained.artefact}")


def preview_generator(spec: StudySpec, results: Path, console: Console, *, out: Path, images: int, draws: int) -> None:
    """Write a grid of training images and draws from them.

    Args:
        spec: the study.
        results: the results directory with the store.
        console: where the picture's place is printed.
        out: the PNG file to write.
        images: training images a class.
        draws: draws an image.

    Raises:
        StudyError: the generator is not trained yet, or the picture cannot be written.
    """
    store = open_store(StudyPaths(results.resolve(), spec.name), spec)
    dataset = prepare(spec.data, store)
    generator = _ready_generator(spec, dataset, store)
    grid = sample_grid(generator, dataset, images, draws, spec.stream.seed)
    try:
        save_grid(grid, out)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"the picture cannot be written to {out} ({error}); choose another place with --out FILE.png"
        ) from None
    console.print(f"{out}: a row an image; the training image, then {draws} draws of the generator", highlight=False)


def _ready_generator(spec: StudySpec, dataset: Dataset, store: Store) -> Generator:
    compute = Compute.resolve(spec.stream.precision)
    if trains(spec.generator):
        artefact = find_generator(spec.generator, dataset, store, compute)
        if artefact is None:
            raise StudyError(
                f"this study's generator is not in {store.root} yet; train it with `gitdist generator train`"
            )
    else:
        artefact = generator_artefact(spec.generator, dataset, store, lambda step: None, compute)
    return load_generator(spec.generator, dataset, artefact, compute)
