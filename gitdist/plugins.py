"""Attributes of other packages that a study file names."""

import importlib
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gitdist.errors import SpecError

_NOT_THEIRS = (str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<frozen")


def load_attribute(target: str, group: str, field: str) -> Any:
    """Return the attribute that a study file names.

    Args:
        target: ``package.module:attribute``, or the name of an installed entry point.
        group: of the entry points.
        field: where the study file names it, for messages.

    Raises:
        SpecError: there is no such entry point, module or attribute, or importing it raised, ``SystemExit`` too.
    """
    try:
        if ":" not in target:
            installed = entry_points(group=group)
            if target not in installed.names:
                raise LookupError(f"no such entry point among {', '.join(sorted(installed.names)) or 'none at all'}")
            return installed[target].load()
        module, _, path = target.partition(":")
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        return found
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        is_missing = isinstance(error, ImportError | AttributeError | LookupError)
        remedy = (
            "make it importable on every node (pip install, or PYTHONPATH: the study file's folder is not searched)"
        )
        raise SpecError(
            f"{field} must be package.module:attribute or an entry point of the group {group}, but '{target}' gives "
            f"{describe_raised(error)}; {remedy if is_missing else 'fix it'}"
        ) from error


def describe_raised(error: BaseException) -> str:
    """Return in one line what another package's code raised, and in which of its lines."""
    from gitdist.torch_file import load_failure  # slow to import

    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    line = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {load_failure(error)}{line}"
