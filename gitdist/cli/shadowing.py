"""Finds the file of the user's that Python has imported in place of a library's module.

``PYTHONPATH`` is searched before the libraries, so a ``random.py`` in such a folder is imported as the module random.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import ModuleType, TracebackType


def explain_shadowing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Handle an uncaught exception: name the file if it comes from such a file, and exit with code 2."""
    file = _shadowing_file(error)
    if file is None:
        sys.__excepthook__(kind, error, trace)
        return
    remedy = "rename it, or take its folder out of PYTHONPATH"
    print(f"error: {file} has the name of a module that gitdist needs, and hides it; {remedy}", file=sys.stderr)
    sys.exit(2)


def _shadowing_file(error: BaseException) -> str | None:
    standard_library = os.path.dirname(os.__file__)
    if standard_library not in sys.path:
        return None
    first = sys.path.index(standard_library)
    folders, libraries = sys.path[:first], sys.path[first:]
    for file in _files_of(error):
        if not file.endswith(".py"):  # such as the command's script, which has the package's name
            continue
        folder, name = os.path.split(file.removesuffix(f"{os.sep}__init__.py").removesuffix(".py"))
        if folder in folders and not _is_installation(folder):
            if name in sys.stdlib_module_names or PathFinder.find_spec(name, libraries):
                return file
    return None


def _files_of(error: BaseException | None) -> Iterator[str]:
    """Yield the files that an error names, or that it passed through, the innermost first."""
    while error is not None:
        if isinstance(error, ImportError) and error.path:
            yield error.path
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType) and error.obj.__file__:
            yield error.obj.__file__
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            yield frame.filename
        error = error.__cause__ or error.__context__


def _is_installation(folder: str) -> bool:
    return any(name.endswith((".dist-info", ".egg-info")) for name in os.listdir(folder))
