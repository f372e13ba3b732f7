"""The commands and their options; what they do is imported when they run, so that ``--help`` is quick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gitdist import __version__
from gitdist.cli.generator_app import generator_app
from gitdist.cli.options import (
    RESULTS,
    RESULTS_DIRECTORY,
    Address,
    Overrides,
    ResultsDirectory,
    ResultsOption,
    Scale,
    StudyFile,
    opened,
)
from gitdist.errors import SpecError

app = typer.Typer(
    name="gitdist",
    help="Find the augmentation settings that make a classifier accurate and invariant on the small classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="List data sources, or look at a study's data set.", no_args_is_help=True)
app.add_typer(generator_app, name="generator")
app.add_typer(data_app, name="data")
store_app = typer.Typer(help="List the artefacts that all studies share, or delete unused ones.", no_args_is_help=True)
app.add_typer(store_app, name="store")

Study = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name or file.")]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Take the study from a driver that seems to live, on whatever host.")
]


REMOVED = {
    "bench": "python studies/benchmarks/NAME.py in a checkout of gitdist (see studies/benchmarks/README.md)",
    "run --submit": "ray job submit --address http://HOST:8265 --working-dir . -- gitdist run STUDY.yaml "
    "--results /shared/results",
}
"""What replaces each removed command or option."""


def refuse_removed(arguments: Sequence[str]) -> None:
    """Refuse a command or an option that has been removed.

    Raises:
        SpecError: ``arguments`` contain one; the message names its replacement.
    """
    for removed, replacement in REMOVED.items():
        command, *options = removed.split()
        if list(arguments[:1]) == [command] and set(options) <= set(arguments):
            raise SpecError(f"`gitdist {removed}` has been removed; use: {replacement}")


def console_for_errors() -> Console:
    """Return the console of error messages: standard error."""
    return Console(stderr=True)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"gitdist {__version__}")
        raise typer.Exit


@app.command()
def run(
    study: StudyFile,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    scale: Scale = None,
    fork: Annotated[
        str | None, typer.Option(metavar="NAME", help="Start another study of that name; what the two share is reused.")
    ] = None,
    take_over: TakeOver = False,
) -> None:
    """Run a study; run it again to resume it."""
    from gitdist.cli.run import HowToRun, run_to_the_end
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale)
    with opened(results) as place:
        run_to_the_end(plan, place, Console(), HowToRun(address=address, take_over=take_over, fork_name=fork))


@app.command()
def resume(
    study: Study,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    take_over: TakeOver = False,
) -> None:
    """Go on with a study that was started before: `run` by name."""
    from gitdist.cli.run import HowToRun, run_to_the_end
    from gitdist.cli.studies import stored_plan
    from gitdist.spec.file import override_plan

    with opened(results) as place:
        plan = override_plan(stored_plan(study, place), set_ or ())
        run_to_the_end(plan, place, Console(), HowToRun(address=address, take_over=take_over))


@app.command()
def retry(
    study: Study,
    failed: Annotated[bool, typer.Option("--failed", help="Try the failed trials again (required).")] = False,
    results: ResultsOption = RESULTS,
    address: Address = None,
    take_over: TakeOver = False,
) -> None:
    """Try trials again, under new numbers, and go on with the study."""
    from gitdist.cli.run import HowToRun, run_to_the_end
    from gitdist.cli.studies import stored_plan
    from gitdist.errors import StudyError

    if not failed:
        raise StudyError("retry takes which trials to try again, and knows one kind: --failed")
    how = HowToRun(address=address, take_over=take_over, retry_failed=True)
    with opened(results) as place:
        run_to_the_end(stored_plan(study, place), place, Console(), how)


@app.command()
def sync(study: Study, results: ResultsOption = RESULTS) -> None:
    """Bring MLflow up to what the study's files say."""
    from gitdist.cli.sync import sync_stored_study

    with opened(results) as place:
        sync_stored_study(study, place, Console())


@app.command()
def status(
    study: Study,
    results: ResultsOption = RESULTS,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Show what is done, running and failed, the best so far and the time left, from any terminal."""
    from gitdist.cli.status import show_status

    with opened(results) as place:
        show_status(study, place, Console(), json)


@app.command()
def report(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Names of studies, or of campaigns.")],
    results: ResultsOption = RESULTS,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The report's directory (default: RESULTS/STUDY/report).")
    ] = None,
) -> None:
    """Write figures, tables and one page of what studies found so far, running or finished."""
    from gitdist.cli.report import report_studies

    with opened(results) as place:
        report_studies(studies, place, out, Console())


@app.command()
def ui(
    study: Annotated[str | None, typer.Argument(help="Name or file of a study whose own store to open.")] = None,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the results directory's store (this machine only; Ctrl-C ends it)."""
    from gitdist.cli.ui import serve_ui

    serve_ui(study, results, port, Console())


@app.command()
def doctor(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY.yaml]", help="A study that should run here.")] = None,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    scale: Scale = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Check this machine, the cluster's nodes and a study's services, with a remedy for each finding."""
    from gitdist.cli.doctor import show_findings
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale) if study else None
    show_findings(plan, results, address, Console(), json)


@data_app.command("ls")
def data_ls() -> None:
    """List the data sources and whether their files are here."""
    from gitdist.cli.data import list_sources

    list_sources(Console())


@data_app.command("stats")
def data_stats(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    thumbnails: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a sheet of training images, a row a class.")
    ] = None,
) -> None:
    """Show the class sizes, shot groups, pixel statistics and duplicates of a study's data set."""
    from gitdist.cli.data import show_stats
    from gitdist.spec.file import load_study

    show_stats(load_study(study, set_ or (), scale), results, Console(), thumbnails)


@store_app.command("ls")
def store_ls(results: ResultsOption = RESULTS) -> None:
    """List the artefacts, the least recently used first."""
    from gitdist.cli.store import list_artefacts

    with opened(results) as place:
        list_artefacts(place, Console())


@store_app.command("gc")
def store_gc(
    results: ResultsOption = RESULTS,
    max_gb: Annotated[
        float | None,
        typer.Option("--max-gb", metavar="X", min=0, help="Keep the most recently used X GB of artefacts."),
    ] = None,
    unused_days: Annotated[
        float | None, typer.Option("--unused-days", metavar="N", min=0, help="Delete artefacts not used for N days.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
) -> None:
    """Delete leftovers of dead processes and damaged artefacts; with options, artefacts that no running study uses."""
    from gitdist.cli.store import collect_garbage

    with opened(results) as place:
        collect_garbage(place, Console(), max_gb=max_gb, unused_days=unused_days, dry_run=dry_run)
