"""The commands and their options; what they do is imported when they run, so that ``--help`` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gitdist import __version__

app = typer.Typer(
    name="gitdist",
    help="Find the augmentation settings that make a classifier accurate and invariant on the small classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
generator_app = typer.Typer(help="Train a study's generator, or look at what it draws.", no_args_is_help=True)
data_app = typer.Typer(help="List data sources, or look at a study's data set.", no_args_is_help=True)
app.add_typer(generator_app, name="generator")
app.add_typer(data_app, name="data")

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Results directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the study file; may be repeated."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Ray cluster to join (default: $RAY_ADDRESS, else this machine)."
    ),
]
RESULTS = Path("results")


def console_for_errors() -> Console:
    """Return the console of error messages: standard error."""
    return Console(stderr=True)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"gitdist {__version__}")
        raise typer.Exit


@app.command()
def run(study: StudyFile, results: Results = RESULTS, set_: Overrides = None, address: Address = None) -> None:
    """Run a study; run it again to resume it."""
    from gitdist.cli.tables import summary_table
    from gitdist.spec.file import load_study

    spec = load_study(study, set_ or ())
    from gitdist.study.runner import run_study  # takes seconds; a mistake in the file is told at once

    console = Console()
    try:
        summary = run_study(spec, results, console, address)
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on with study '{spec.name}'", highlight=False)
        raise typer.Exit(130) from None
    console.print(summary_table(summary))
    console.print(f"look at it: gitdist ui --results {results}", highlight=False, style="dim")


@app.command()
def status(study: Annotated[str, typer.Argument(help="The study's name or file.")], results: Results = RESULTS) -> None:
    """Show the trials of a study, from any terminal."""
    from gitdist.cli.status import show_status

    show_status(study, results, Console())


@app.command()
def ui(
    study: Annotated[str | None, typer.Argument(help="A study whose own tracking store to open.")] = None,
    results: Results = RESULTS,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the results directory's store (this machine only; Ctrl-C ends it)."""
    from gitdist.cli.ui import serve_ui

    serve_ui(study, results, port, Console())


@generator_app.command("train")
def generator_train(
    study: StudyFile, results: Results = RESULTS, set_: Overrides = None, address: Address = None
) -> None:
    """Train the study's generator, or go on with a training that was interrupted."""
    from gitdist.cli.generator import train_generator
    from gitdist.spec.file import load_study

    train_generator(load_study(study, set_ or ()), results, Console(), address)


@generator_app.command("preview")
def generator_preview(
    study: StudyFile,
    results: Results = RESULTS,
    set_: Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to write.")] = Path("preview.png"),
    draws: Annotated[int, typer.Option(min=1, max=32, help="Draws per image.")] = 8,
    images: Annotated[int, typer.Option(min=1, max=8, help="Images per class.")] = 1,
) -> None:
    """Write a grid picture: per class, training images and draws of the trained generator from them."""
    from gitdist.cli.generator import preview_generator
    from gitdist.spec.file import load_study

    preview_generator(load_study(study, set_ or ()), results, Console(), out=out, images=images, draws=draws)


@data_app.command("ls")
def data_ls() -> None:
    """List the data sources and whether their files are here."""
    from gitdist.cli.data import list_sources

    list_sources(Console())


@data_app.command("stats")
def data_stats(study: StudyFile, results: Results = RESULTS, set_: Overrides = None) -> None:
    """Show the class sizes, shot groups and pixel statistics of a study's data set."""
    from gitdist.cli.data import show_stats
    from gitdist.spec.file import load_study

    show_stats(load_study(study, set_ or ()), results, Console())
