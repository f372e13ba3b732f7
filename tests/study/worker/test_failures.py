import errno
import os

import numpy as np
import pytest
import torch

from gitdist.errors import DataError, DiskError, StoreError, StreamError, TrialFailedError
from gitdist.study.worker.failures import describe_failure
from tests.disks import fill, small_disk


def raised(action):
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("it went well")


def cuda_says_no():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation.")


def library_says_no():
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def kernel_says_no():
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize(
    "action",
    [
        lambda: torch.empty(10**14, dtype=torch.uint8),
        lambda: np.zeros(10**15, np.uint8),
        cuda_says_no,
        library_says_no,
        kernel_says_no,
    ],
)
def test_lack_of_memory_is_told_with_the_remedies(tmp_path, action):
    error = raised(action)
    report = describe_failure(error, tmp_path)
    reason = str(error).splitlines()[0]
    assert report == {
        "failed": f"out of memory: {reason}; lower trial.batch_size, raise resources.trial, "
        f"or run fewer trials at once with resources.max_concurrent (see {tmp_path / 'error.txt'})"
    }
    assert reason in (tmp_path / "error.txt").read_text()


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), KeyError("what"), RuntimeError("no\nwhat")])
def test_a_bug_is_told_by_its_last_line_and_its_traceback_is_kept(tmp_path, error):
    def broken():
        raise error

    report = describe_failure(raised(broken), tmp_path)
    reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    assert report == {"failed": f"{reason} (see {tmp_path / 'error.txt'})"}
    text = (tmp_path / "error.txt").read_text()
    assert text.startswith("Traceback") and "in broken" in text and reason in text


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("failed", TrialFailedError("loss became nan in epoch 3, step 4")),
        ("halt", StreamError("the stream must deliver")),
        ("disk", DiskError("cannot write x: No space left on device")),
        ("halt", StoreError("a checkpoint holds tensors")),
        ("halt", DataError("a prepared data set must be whole")),
    ],
)
def test_a_cause_that_explains_itself_needs_no_traceback(tmp_path, kind, error):
    assert describe_failure(error, tmp_path) == {kind: str(error)}
    assert not list(tmp_path.iterdir())


def test_what_a_server_meets_is_no_trials_fault_and_names_the_servers_remedy(tmp_path):
    error = StreamError("the stream must make block 3 of class 1, but OutOfMemoryError: CUDA out of memory")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert describe_failure(error, tmp_path) == {
        "halt": f"{error}; raise resources.server, or run fewer servers with resources.servers"
    }


def test_a_full_disk_that_nobody_put_into_words_is_told_as_such_too(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/x")
    assert describe_failure(error, tmp_path) == {"disk": "[Errno 28] No space left on device: '/full/x'"}


def test_without_room_for_the_traceback_the_reason_alone_is_told(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        assert describe_failure(KeyError("a bug"), disk) == {"failed": "KeyError: 'a bug'"}
