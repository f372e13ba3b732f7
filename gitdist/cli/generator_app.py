"""``gitdist generator`` and its commands; what they do is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gitdist.cli.options import RESULTS_DIRECTORY, Address, Overrides, ResultsDirectory, Scale, StudyFile

generator_app = typer.Typer(
    help="Train a study's generator, import one, look at what it draws or measure it.", no_args_is_help=True
)


@generator_app.command("train")
def train(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    address: Address = None,
) -> None:
    """Train the study's generator, or go on with a training that was interrupted."""
    from gitdist.cli.generator import train_generator
    from gitdist.spec.file import load_study

    train_generator(load_study(study, set_ or (), scale), results, Console(), address)


@generator_app.command("preview")
def preview(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to write.")] = Path("preview.png"),
    draws: Annotated[int, typer.Option(min=1, max=32, help="Draws per image.")] = 8,
    images: Annotated[int, typer.Option(min=1, max=8, help="Images per class.")] = 1,
    truth: Annotated[bool, typer.Option("--truth", help="Beside them, draws of the data set's own nuisance.")] = False,
) -> None:
    """Write a grid picture: per class, training images and draws of the trained generator from them."""
    from gitdist.cli.generator import preview_generator
    from gitdist.spec.file import load_study

    spec = load_study(study, set_ or (), scale)
    preview_generator(spec, results, Console(), out=out, images=images, draws=draws, truth=truth)


@generator_app.command("quality")
def quality(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    images: Annotated[int, typer.Option(min=1, help="Validation images per class.")] = 10,
    draws: Annotated[int, typer.Option(min=2, help="Draws per image.")] = 16,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of the classifier that judges (default: as many as see 60,000 images)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Measure the generators of a study or campaign: whether draws keep their class, how much they vary."""
    from gitdist.cli.quality import show_quality
    from gitdist.spec.campaign import Campaign
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale)
    specs = [member.spec for member in plan.members] if isinstance(plan, Campaign) else [plan]
    show_quality(specs, results, Console(), images=images, draws=draws, epochs=epochs, as_json=json)


@generator_app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint as GIT's authors publish it.")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="The file to write.")],
) -> None:
    """Write the generator in a published checkpoint to a file for `generator: {kind: pretrained, path: FILE}`."""
    from gitdist.cli.generator import import_generator

    import_generator(checkpoint, out, Console())
