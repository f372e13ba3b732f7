"""What a shell completes: names of studies, and what ``gitdist init`` takes. Imports nothing that is slow."""

from pathlib import Path
from typing import get_args

import typer


def complete_studies(context: typer.Context, incomplete: str) -> list[str]:
    """Return the studies and campaigns in the results directory."""
    directory = Path(str(context.params.get("results") or "results"))
    try:
        names = [entry.name for entry in directory.iterdir() if is_study(entry)]
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def complete_starts(incomplete: str) -> list[str]:
    """Return the templates, the public data sets and the folders of the working directory."""
    from gitdist.spec.data import PublishedName

    templates = sorted(file.stem for file in (Path(__file__).parents[1] / "templates").glob("*.yaml"))
    folders = sorted(f"{path}/" for path in Path.cwd().iterdir() if path.is_dir() and not path.name.startswith("."))
    names = [*templates, *get_args(PublishedName), *(Path(folder).name for folder in folders)]
    return [name for name in names if name.startswith(incomplete)]


def is_study(folder: Path) -> bool:
    """Return whether a folder of the results is that of a study or a campaign."""
    return (folder / "study.yaml").is_file() or (folder / "campaign.yaml").is_file()
