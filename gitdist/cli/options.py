"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

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
Scale = Annotated[
    str | None,
    typer.Option("--scale", metavar="NAME", help="One of the scales in the study file (default: its first)."),
]
RESULTS = Path("results")
