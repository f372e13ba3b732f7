"""Lets a test meet missing permissions, which do not exist for root."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Have this process access files as a user who owns none."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a temporary folder that every user can enter, as pytest's cannot be."""
    with tempfile.TemporaryDirectory(prefix="gitdist-shared-") as name:
        os.chmod(name, 0o777)
        yield Path(name)
