"""The commands and their options; each command imports its code when it runs, so that ``--help`` is quick."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gitdist import __version__
from gitdist.errors import SpecError
from gitdist.input_file import expand_home

if TYPE_CHECKING:  # slow to import
    from gitdist.study.files.results import Results

app = typer.Typer(
    name="gitdist",
    help="Find the augmentation settings that make a classifier accurate and invariant on the small classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
generator_app = typer.Typer(
    help="Train a study's generator, import one, preview its draws or measure it.", no_args_is_help=True
)
data_app = typer.Typer(help="List data sources, or inspect a study's data set.", no_args_is_help=True)
store_app = typer.Typer(help="List what the store contains, or free space in it.", no_args_is_help=True)
app.add_typer(generator_app, name="generator")
app.add_typer(data_app, name="data")
app.add_typer(store_app, name="store")

REMOVED = {
    "bench": "python studies/benchmarks/NAME.py in a checkout of gitdist (see studies/benchmarks/README.md)",
    "run --submit": "ray job submit --address http://HOST:8265 --working-dir . -- gitdist run STUDY.yaml "
    "--results /shared/results",
}
"""What replaces each removed command or option."""


def refuse_removed(arguments: Sequence[str]) -> None:
    """Refuse a command or an option that has been removed."""
    for removed, replacement in REMOVED.items():
        command, *options = removed.split()
        if list(arguments[:1]) == [command] and set(options) <= set(arguments):
            raise SpecError(f"`gitdist {removed}` has been removed; use: {replacement}")


def _on_disk(path: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise SpecError(
            "this command takes a results directory, but --results is on an object store; name a directory of this "
            "machine"
        )
    return path


def _expanded_results(results: str) -> str:
    return results if "://" in results else str(expand_home(results))


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.", parser=expand_home)]
Study = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name or file.")]
ResultsOption = Annotated[
    str,
    typer.Option(
        "--results",
        metavar="DIR",
        help="Results directory, or a URI such as s3://bucket/prefix.",
        parser=_expanded_results,
    ),
]
ResultsDirectory = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Results directory.", callback=_on_disk, parser=expand_home)
]
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
Scale = Annotated[
    str | None,
    typer.Option("--scale", metavar="NAME", help="One of the scales in the study file (default: the first)."),
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Take over the study from a driver that seems to be alive, on any host.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
TrialNumber = Annotated[
    int | None, typer.Option("--trial", metavar="N", min=0, help="Number of a finished trial (default: the best one).")
]
RESULTS = "results"
RESULTS_DIRECTORY = Path(RESULTS)


@contextmanager
def opened(results: str) -> "Iterator[Results]":
    """Open the results directory, or the results on an object store; errors then name its URI."""
    from gitdist.study.files.results import open_results

    opened_results = open_results(results)
    opened_results.connect()
    with opened_results.rewriting_errors():
        yield opened_results


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"gitdist {__version__}")
        raise typer.Exit
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SpecError("the working directory has been deleted; change to another one") from None


@app.command()
def init(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE|FOLDER|SOURCE",
            help="The template quickstart, a folder of images or arrays, or a data set of `gitdist data ls`.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.", parser=expand_home)] = Path(
        "study.yaml"
    ),
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the study.")] = None,
) -> None:
    """Write a first study file that fits a data set."""
    from gitdist.cli.init import init_study

    init_study(what, out, name, Console())


@app.command()
def run(
    study: StudyFile,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    scale: Scale = None,
    fork: Annotated[
        str | None, typer.Option(metavar="NAME", help="Start another study of that name, reusing artifacts.")
    ] = None,
    take_over: TakeOver = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Start a study that takes more than a day without asking.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show what it takes; write and start nothing.")
    ] = False,
) -> None:
    """Run a study; run it again to resume it."""
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale)
    if dry_run:
        from gitdist.cli.dry_run import show_dry_run

        with opened(results) as read_results:
            show_dry_run(plan, read_results, Console(), address=address, take_over=take_over, fork_name=fork)
        return
    from gitdist.cli.run import CommandOptions, run_plan

    options = CommandOptions(address=address, take_over=take_over, fork_name=fork, asks=not yes)
    with opened(results) as opened_results:
        run_plan(plan, opened_results, Console(), options)


@app.command()
def resume(
    study: Study,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    take_over: TakeOver = False,
) -> None:
    """Resume a study by its name."""
    from gitdist.cli.run import CommandOptions, run_plan
    from gitdist.cli.studies import stored_plan
    from gitdist.spec.file import override_plan

    with opened(results) as opened_results:
        plan = override_plan(stored_plan(study, opened_results), set_ or ())
        run_plan(plan, opened_results, Console(), CommandOptions(address=address, take_over=take_over))


@app.command()
def retry(
    study: Study,
    failed: Annotated[bool, typer.Option("--failed", help="Retry the failed trials (required).")] = False,
    results: ResultsOption = RESULTS,
    address: Address = None,
    take_over: TakeOver = False,
) -> None:
    """Retry trials under new numbers, and resume the study."""
    from gitdist.cli.run import CommandOptions, run_plan
    from gitdist.cli.studies import stored_plan

    if not failed:
        raise SpecError("retry: --failed is required")
    options = CommandOptions(address=address, take_over=take_over, retry_failed=True)
    with opened(results) as opened_results:
        run_plan(stored_plan(study, opened_results), opened_results, Console(), options)


@app.command()
def sync(study: Study, results: ResultsOption = RESULTS) -> None:
    """Bring MLflow up to date with the study's files."""
    from gitdist.cli.tracking import sync_stored_study

    with opened(results) as opened_results:
        sync_stored_study(study, opened_results, Console())


@app.command()
def status(study: Study, results: ResultsOption = RESULTS, json: Json = False) -> None:
    """Show finished, running and failed trials, the best so far and the time left; works from any terminal."""
    from gitdist.cli.status import show_status

    with opened(results) as opened_results:
        show_status(study, opened_results, Console(), json)


@app.command()
def report(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Names of studies, or of campaigns.")],
    results: ResultsOption = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report's directory (default: RESULTS/STUDY/report).", parser=expand_home),
    ] = None,
) -> None:
    """Write figures, tables and one page about studies, running or finished."""
    from gitdist.cli.report import report_studies

    with opened(results) as opened_results:
        report_studies(studies, opened_results, out, Console())


@app.command()
def export(
    study: Study,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A file that ends in .pt2, .onnx or .safetensors.", parser=expand_home),
    ],
    trial: TrialNumber = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="The baseline instead of a trial.")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Write a trained classifier to a file that loads without gitdist: uint8 images in, probabilities out."""
    from gitdist.cli.export import export_model

    with opened(results) as opened_results:
        export_model(study, opened_results, Console(), out=out, trial=trial, baseline=baseline)


@app.command()
def predict(
    study: Study,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    trial: TrialNumber = None,
    results: ResultsOption = RESULTS,
    json: Json = False,
) -> None:
    """Print the class and its probability for each image."""
    from gitdist.cli.export import predict_images

    with opened(results) as opened_results:
        predict_images(study, images, opened_results, Console(), trial=trial, as_json=json)


@app.command()
def ui(
    study: Annotated[str | None, typer.Argument(help="Name or file of a study; opens its MLflow store.")] = None,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the results directory's store (on this machine only; Ctrl-C ends it)."""
    from gitdist.cli.tracking import serve_ui

    serve_ui(study, results, port, Console())


@app.command()
def doctor(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.yaml]", help="Study to check for.", parser=expand_home)
    ] = None,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    scale: Scale = None,
    json: Json = False,
) -> None:
    """Check this machine, the cluster's nodes and a study's services, with a remedy for each finding."""
    from gitdist.cli.doctor import show_findings
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale) if study else None
    show_findings(plan, results, address, Console(), json)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a file instead.", parser=expand_home)
    ] = None,
) -> None:
    """Print the JSON schema of a study file, by which editors complete and check its fields."""
    from gitdist.cli.init import write_schema

    write_schema(out)


@generator_app.command("train")
def generator_train(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    address: Address = None,
) -> None:
    """Train the study's generator, or resume an interrupted training."""
    from gitdist.cli.generator import train_generator
    from gitdist.spec.file import load_study

    train_generator(load_study(study, set_ or (), scale), results, Console(), address)


@generator_app.command("preview")
def generator_preview(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to write.", parser=expand_home)] = Path(
        "preview.png"
    ),
    draws: Annotated[int, typer.Option(min=1, max=32, help="Draws per image.")] = 8,
    images: Annotated[int, typer.Option(min=1, max=8, help="Images per class.")] = 1,
    truth: Annotated[bool, typer.Option("--truth", help="Add draws of the data set's own nuisance.")] = False,
) -> None:
    """Write a grid picture: per class, training images and draws of the trained generator from them."""
    from gitdist.cli.generator import preview_generator
    from gitdist.cli.outputs import check_output
    from gitdist.spec.file import load_study

    spec = load_study(study, set_ or (), scale)
    check_output("--out", out, study, spec)
    preview_generator(spec, results, Console(), out=out, images=images, draws=draws, truth=truth)


@generator_app.command("quality")
def generator_quality(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    images: Annotated[int, typer.Option(min=1, max=100_000, help="Validation images per class.")] = 10,
    draws: Annotated[int, typer.Option(min=2, max=100_000, help="Draws per image.")] = 16,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Epochs of the reference classifier (default: enough to see 60,000 images)."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure the generators of a study or campaign: whether draws keep their class, how much they vary."""
    from gitdist.cli.quality import show_quality
    from gitdist.spec.campaign import Campaign
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale)
    specs = [member.spec for member in plan.members] if isinstance(plan, Campaign) else [plan]
    show_quality(specs, results, Console(), images=images, draws=draws, epochs=epochs, as_json=json)


@generator_app.command("import")
def generator_import(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint published by GIT's authors.", parser=expand_home),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="The file to write.", parser=expand_home)],
) -> None:
    """Write the generator in a published checkpoint to a file for `generator: {kind: pretrained, path: FILE}`."""
    from gitdist.cli.generator import import_generator
    from gitdist.cli.outputs import check_output

    check_output("--out", out, checkpoint)
    import_generator(checkpoint, out, Console())


@data_app.command("ls")
def data_ls() -> None:
    """List the data sources, and where their files are."""
    from gitdist.cli.data import list_sources

    list_sources(Console())


@data_app.command("stats")
def data_stats(
    study: StudyFile,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    set_: Overrides = None,
    scale: Scale = None,
    thumbnails: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Write a sheet of training images, one row per class.", parser=expand_home
        ),
    ] = None,
) -> None:
    """Show the class sizes, shot groups, pixel statistics and duplicates of a study's data set."""
    from gitdist.cli.data import show_stats
    from gitdist.cli.outputs import check_output
    from gitdist.spec.file import load_study

    spec = load_study(study, set_ or (), scale)
    if thumbnails is not None:
        check_output("--thumbnails", thumbnails, study, spec)
    show_stats(spec, results, Console(), thumbnails)


@store_app.command("ls")
def store_ls(results: ResultsOption = RESULTS) -> None:
    """List the artifacts, the least recently used first."""
    from gitdist.cli.store import list_artifacts

    with opened(results) as opened_results:
        list_artifacts(opened_results, Console())


@store_app.command("gc")
def store_gc(
    results: ResultsOption = RESULTS,
    max_gb: Annotated[
        float | None,
        typer.Option("--max-gb", metavar="X", min=0, help="Keep the most recently used X GB of artifacts."),
    ] = None,
    unused_days: Annotated[
        float | None, typer.Option("--unused-days", metavar="N", min=0, help="Delete artifacts not used for N days.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
) -> None:
    """Delete leftovers of dead processes and damaged artifacts; with limits, also artifacts that no study uses."""
    from gitdist.cli.store import collect_garbage

    with opened(results) as opened_results:
        collect_garbage(opened_results, Console(), max_gb=max_gb, unused_days=unused_days, dry_run=dry_run)
