"""Attributes of other packages that a study file names, and what their mistakes look like to its user."""

import importlib
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gitdist.errors import SpecError, first_line

_NOT_THEIRS = (str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<frozen")


def load_attribute(target: str, group: str, field: str) -> Any:
    """Return the attribute that a study file names.

    Args:
        target: ``package.module:attribute``, or the name of an installed entry point.
        group: of the entry points.
        field: where the study file names it, for messages.

    Raises:
        SpecError: there is no such entry point, module or attribute, or importing it raised.
    """
    try:
        if ":" not in target:
            return _entry_point(target, group).load()
        module, _, path = target.partition(":")
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        return found
    except Exception as error:
        raise SpecError(
            f"{field} must be package.module:attribute or an entry point of the group {group}, but '{target}' gives "
            f"{raised(error)}; make it importable on every node (pip install, or PYTHONPATH: the study file's folder "
            "is not searched)"
        ) from error


def raised(error: Exception) -> str:
    """Return in one line what another package's code raised, and in which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"


def _entry_point(name: str, group: str) -> Any:
    found = entry_points(group=group)
    if name not in found.names:
        raise LookupError(f"no such entry point among {', '.join(sorted(found.names)) or 'none at all'}")
    return found[name]
