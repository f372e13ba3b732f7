"""Finds the file of the user's that Python has imported in place of a library's module.

``PYTHONPATH`` is searched before the libraries, so a ``random.py`` in such a folder is imported as the module random.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType


def shadowing_file(error: BaseException) -> Path | None:
    """Return the file that an error comes from, if it has the name of a library's module and hides that; else None."""
    folders = [Path(folder) for folder in sys.path]
    for file in _files_of(error):
        package = file.parent if file.name == "__init__.py" else file
        if package.parent in folders and not _is_installation(package.parent):
            others = [str(folder) for folder in folders[folders.index(package.parent) + 1 :]]
            if package.stem in sys.stdlib_module_names or PathFinder.find_spec(package.stem, others):
                return file
    return None


def _files_of(error: BaseException | None) -> Iterator[Path]:
    """Yield the files that an error names, or that it passed through, the innermost first."""
    while error is not None:
        if isinstance(error, ImportError) and error.path:
            yield Path(error.path)
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType) and error.obj.__file__:
            yield Path(error.obj.__file__)
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            yield Path(frame.filename)
        error = error.__cause__ or error.__context__


def _is_installation(folder: Path) -> bool:
    return any(name.endswith((".dist-info", ".egg-info")) for name in os.listdir(folder))
