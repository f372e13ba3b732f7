"""``gitdist schema``: the fields of a study file."""

import json
from pathlib import Path

import typer

from gitdist.disk import write_atomic
from gitdist.spec.schema import study_file_schema


def write_schema(out: Path | None) -> None:
    """Print the JSON schema of a study file, or write it to ``out``."""
    text = json.dumps(study_file_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())
