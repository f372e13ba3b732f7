"""The commands and their options; each command imports its code when it runs, so that ``--help`` is quick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gitdist import __version__
from gitdist.cli.options import (
    RESULTS,
    RESULTS_DIRECTORY,
    Address,
    Json,
    OptionalStudy,
    Overrides,
    ResultsDirectory,
    ResultsOption,
    Scale,
    Starts,
    Studies,
    Study,
    StudyFile,
    TakeOver,
    TrialNumber,
    examples,
    opened,
)
from gitdist.errors import SpecError
from gitdist.input_file import expand_home

app = typer.Typer(
    name="gitdist",
    help="Find the augmentation settings that make a classifier accurate and invariant on the small classes.",
    no_args_is_help=True,
    epilog=examples("gitdist init quickstart", "gitdist run study.yaml", "gitdist report quickstart"),
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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"gitdist {__version__}")
        raise typer.Exit
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SpecError("the working directory has been deleted; change to another one") from None


@app.command(epilog=examples("gitdist init quickstart", "gitdist init ./photos --out photos.yaml"))
def init(
    what: Starts,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.", parser=expand_home)] = Path(
        "study.yaml"
    ),
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the study.")] = None,
) -> None:
    """Write a first study file that fits a data set."""
    from gitdist.cli.init import init_study

    init_study(what, out, name, Console())


@app.command(epilog=examples("gitdist run study.yaml --dry-run", "gitdist run study.yaml --set search.total=20"))
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
    from gitdist.cli.run import CommandOptions, check_plan, run_plan
    from gitdist.spec.file import load_plan

    plan = load_plan(study, set_ or (), scale)
    options = CommandOptions(address=address, take_over=take_over, fork_name=fork, asks=not yes)
    with opened(results) as opened_results:
        (check_plan if dry_run else run_plan)(plan, opened_results, Console(), options)


@app.command(epilog=examples("gitdist resume quickstart", "gitdist resume quickstart --set search.total=50"))
def resume(
    study: Study,
    results: ResultsOption = RESULTS,
    set_: Overrides = None,
    address: Address = None,
    take_over: TakeOver = False,
) -> None:
    """Resume a study by its name."""
    from gitdist.cli.run import CommandOptions, run_stored

    options = CommandOptions(address=address, take_over=take_over)
    with opened(results) as opened_results:
        run_stored(study, set_ or (), opened_results, Console(), options)


@app.command(epilog=examples("gitdist retry quickstart --failed"))
def retry(
    study: Study,
    failed: Annotated[bool, typer.Option("--failed", help="Retry the failed trials (required).")] = False,
    results: ResultsOption = RESULTS,
    address: Address = None,
    take_over: TakeOver = False,
) -> None:
    """Retry trials under new numbers, and resume the study."""
    from gitdist.cli.run import CommandOptions, run_stored

    if not failed:
        raise SpecError("retry: --failed is required")
    options = CommandOptions(address=address, take_over=take_over, retry_failed=True)
    with opened(results) as opened_results:
        run_stored(study, (), opened_results, Console(), options)


@app.command(epilog=examples("gitdist sync quickstart"))
def sync(study: Study, results: ResultsOption = RESULTS) -> None:
    """Bring MLflow up to date with the study's files."""
    from gitdist.cli.tracking import sync_stored_study

    with opened(results) as opened_results:
        sync_stored_study(study, opened_results, Console())


@app.command(epilog=examples("gitdist status", "gitdist status quickstart --json"))
def status(study: OptionalStudy = None, results: ResultsOption = RESULTS, json: Json = False) -> None:
    """Show a study's trials, the best so far and the time left; without a name, all studies of the results."""
    with opened(results) as opened_results:
        if study is None:
            from gitdist.cli.listing import show_results

            show_results(opened_results, Console(), "status", as_json=json)
            return
        from gitdist.cli.status import show_status

        show_status(study, opened_results, Console(), json)


@app.command(
    epilog=examples("gitdist report quickstart", "gitdist report figure3-small table-methods-small --out both")
)
def report(
    studies: Studies = None,
    results: ResultsOption = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The report's directory (default: RESULTS/STUDY/report).", parser=expand_home),
    ] = None,
) -> None:
    """Write figures, tables and one page about studies; without a name, list the studies of the results."""
    with opened(results) as opened_results:
        if not studies:
            from gitdist.cli.listing import show_results

            show_results(opened_results, Console(), "report")
            return
        from gitdist.cli.report import report_studies

        report_studies(studies, opened_results, out, Console())


@app.command(
    epilog=examples(
        "gitdist export quickstart --out model.pt2", "gitdist export quickstart --baseline --out baseline.onnx"
    )
)
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


@app.command(epilog=examples("gitdist predict quickstart photo.jpg more-photos"))
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


@app.command(epilog=examples("gitdist ui", "gitdist ui quickstart --port 5001"))
def ui(
    study: Annotated[str | None, typer.Argument(help="Name or file of a study; opens its MLflow store.")] = None,
    results: ResultsDirectory = RESULTS_DIRECTORY,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the results directory's store (on this machine only; Ctrl-C ends it)."""
    from gitdist.cli.tracking import serve_ui

    serve_ui(study, results, port, Console())


@app.command(
    epilog=examples("gitdist doctor", "gitdist doctor study.yaml --address HOST:6379 --results /shared/results")
)
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


@app.command(epilog=examples("gitdist schema --out study.schema.json"))
def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a file instead.", parser=expand_home)
    ] = None,
) -> None:
    """Print the JSON schema of a study file, by which editors complete and check its fields."""
    from gitdist.cli.init import write_schema

    write_schema(out)


@generator_app.command("train", epilog=examples("gitdist generator train study.yaml --set generator.steps=500"))
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


@generator_app.command("preview", epilog=examples("gitdist generator preview study.yaml --out grid.png --truth"))
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


@generator_app.command("quality", epilog=examples("gitdist generator quality study.yaml --json"))
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
    from gitdist.spec.file import load_studies

    specs = load_studies(study, set_ or (), scale)
    show_quality(specs, results, Console(), images=images, draws=draws, epochs=epochs, as_json=json)


@generator_app.command("import", epilog=examples("gitdist generator import checkpoint.pt --out generator.safetensors"))
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


@data_app.command("ls", epilog=examples("gitdist data ls"))
def data_ls() -> None:
    """List the data sources, and where their files are."""
    from gitdist.cli.sources import list_sources

    list_sources(Console())


@data_app.command("stats", epilog=examples("gitdist data stats study.yaml --thumbnails sheet.png"))
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


@store_app.command("ls", epilog=examples("gitdist store ls"))
def store_ls(results: ResultsOption = RESULTS) -> None:
    """List the artifacts, the least recently used first."""
    from gitdist.cli.store import list_artifacts

    with opened(results) as opened_results:
        list_artifacts(opened_results, Console())


@store_app.command("gc", epilog=examples("gitdist store gc --dry-run", "gitdist store gc --max-gb 20 --unused-days 30"))
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
