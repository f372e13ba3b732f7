"""The home directory in paths that a user gives."""

import os
from pathlib import Path

from gitdist.errors import SpecError


def expand_home(path: str | Path) -> Path:
    """Return a path with the home directory in place of a leading ``~`` or ``~user``; ``./~`` is a file of that name.

    Raises:
        SpecError: the home directory is not known.
    """
    expanded = os.path.expanduser(path)
    if expanded == str(path) and expanded.startswith("~"):
        user = expanded.partition("/")[0]
        remedy = "set HOME, or write the path in full" if user == "~" else f"write the path in full, or ./{user}"
        raise SpecError(f"the home directory {user} of '{path}' is not known; {remedy}")
    return Path(expanded)
