"""Reads what ``torch.save`` wrote as data: no code in a file runs, and a damaged archive is seen."""

import io
import zipfile
from typing import Any

import torch

from gitdist.errors import first_line


class TorchFileError(ValueError):
    """A file cannot be read; the message is the reason, to go into the caller's own sentence."""


def read_torch_file(content: bytes) -> Any:
    """Return the tensors and plain values in a file, on the CPU.

    torch itself does not compare the checksums in its zip archives. Files from before torch 1.6 are no archives and
    have none.

    Args:
        content: of the whole file.

    Raises:
        TorchFileError: it is damaged, of another format, or holds anything but tensors and plain values.
    """
    if content.startswith(b"PK"):
        _check_archive(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes happen to ask for
        raise TorchFileError(f"torch cannot read it: {first_line(error)}") from error


def _check_archive(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged, names = archive.testzip(), archive.namelist()
    except Exception as error:  # as above
        raise TorchFileError(f"its zip archive is damaged or cut short: {first_line(error)}") from error
    if damaged is not None:
        raise TorchFileError(f"it is damaged: the checksum of {damaged} in its zip archive is wrong")
    if any(name.endswith("/constants.pkl") for name in names):
        raise TorchFileError("it is a TorchScript program, not weights")
