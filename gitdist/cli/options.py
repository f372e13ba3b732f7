"""Arguments and options that several commands take."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitdist.errors import SpecError
from gitdist.input_file import expand_home

if TYPE_CHECKING:  # slow to import
    from gitdist.study.files.results import Results


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


def _complete_studies(context: typer.Context, incomplete: str) -> list[str]:
    from gitdist.cli.completion import complete_studies

    return complete_studies(context, incomplete)


def _complete_starts(incomplete: str) -> list[str]:
    from gitdist.cli.completion import complete_starts

    return complete_starts(incomplete)


Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="The study's name or file.", autocompletion=_complete_studies)
]
Studies = Annotated[
    list[str] | None,
    typer.Argument(metavar="STUDY...", help="Names of studies, or of campaigns.", autocompletion=_complete_studies),
]
Starts = Annotated[
    str,
    typer.Argument(
        metavar="TEMPLATE|FOLDER|SOURCE",
        help="The template quickstart, a folder of images or arrays, or a data set of `gitdist data ls`.",
        autocompletion=_complete_starts,
    ),
]
OptionalStudy = Annotated[
    str | None, typer.Argument(metavar="STUDY", help="The study's name or file.", autocompletion=_complete_studies)
]
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


def examples(*commands: str) -> str:
    """Return the end of a help text: commands as examples."""
    return "\n\n".join(["Examples:", *(f"  $ {command}" for command in commands)])


@contextmanager
def opened(results: str) -> "Iterator[Results]":
    """Open the results directory, or the results on an object store; errors then name its URI."""
    from gitdist.study.files.results import open_results

    opened_results = open_results(results)
    opened_results.connect()
    with opened_results.rewriting_errors():
        yield opened_results
