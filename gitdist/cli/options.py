"""Arguments and options that several commands take."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitdist.errors import SpecError

if TYPE_CHECKING:  # what it imports takes its time
    from gitdist.study.files.results import Results

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
ResultsOption = Annotated[
    str, typer.Option("--results", metavar="DIR", help="Results directory, or a URI such as s3://bucket/prefix.")
]


def _on_disk(path: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise SpecError(
            "this command takes a results directory, but --results is on an object store; name a directory of this "
            "machine"
        )
    return path


ResultsDirectory = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Results directory.", callback=_on_disk)
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
    typer.Option("--scale", metavar="NAME", help="One of the scales in the study file (default: its first)."),
]
RESULTS = "results"
RESULTS_DIRECTORY = Path(RESULTS)


@contextmanager
def opened(results: str) -> "Iterator[Results]":
    """Open the results directory, or the results on an object store, whose URI errors then name.

    Raises:
        SpecError: the URI holds credentials.
        StoreError: the object store cannot be reached, written, read or deleted from.
    """
    from gitdist.study.files.results import open_results

    opened_results = open_results(results)
    opened_results.connect()
    with opened_results.describing_errors():
        yield opened_results
