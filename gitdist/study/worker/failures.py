"""Builds the last report of a trial whose training raised an exception; its key is the scope of the error.

failed   this trial: a loss that is not finite, out of memory, a bug
halt     every trial of the study: damaged files, a stream that cannot deliver
disk     every study: the disk is full, over its quota, read-only or failing
"""

import errno
import re
import traceback
from contextlib import suppress
from pathlib import Path

import torch

from gitdist.disk import is_disk_error
from gitdist.errors import DataError, DiskError, StoreError, StreamError, TrialFailedError, first_line

_ALLOCATORS = re.compile("out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
_MEMORY_REMEDY = (
    "lower trial.batch_size, raise resources.trial, or run fewer trials at once with resources.max_concurrent"
)
_SERVER_MEMORY_REMEDY = "raise resources.server, or run fewer servers with resources.servers"


def describe_failure(error: Exception, directory: Path) -> dict[str, str]:
    """Return ``failed``, ``halt`` or ``disk`` with the reason in one line.

    The traceback of a bug or of an out-of-memory error is written to error.txt if the disk is writable.
    """
    if isinstance(error, StreamError):
        out_of_memory = error.__cause__ is not None and _is_out_of_memory(error.__cause__)
        return {"halt": f"{error}; {_SERVER_MEMORY_REMEDY}" if out_of_memory else str(error)}
    if isinstance(error, DiskError) or is_disk_error(error):
        return {"disk": first_line(error)}
    if isinstance(error, StoreError | DataError):
        return {"halt": first_line(error)}
    if isinstance(error, TrialFailedError):
        return {"failed": str(error)}
    reason = f"{type(error).__name__}: {first_line(error)}"
    if _is_out_of_memory(error):
        reason = f"out of memory: {first_line(error)}; {_MEMORY_REMEDY}"
    return {"failed": reason + _save_traceback(error, directory / "error.txt")}


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _ALLOCATORS.search(str(error)) is not None


def _save_traceback(error: Exception, file: Path) -> str:
    with suppress(OSError):
        file.write_text("".join(traceback.format_exception(error)))
        return f" (see {file})"
    return ""
