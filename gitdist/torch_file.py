"""Reads what ``torch.save`` wrote as data: no code in a file runs, and damage is detected."""

import io
import re
import zipfile
from typing import Any

import torch

from gitdist.errors import first_line
from gitdist.input_file import foreign_content


class TorchFileError(ValueError):
    """A file cannot be read; the message is the reason."""


def read_torch_file(content: bytes) -> Any:
    """Return the tensors and plain values in a file's content, on the CPU.

    torch itself does not verify the checksums of its zip archives. Files from before torch 1.6 have none.

    Raises:
        TorchFileError: the file is damaged, of another format, or holds anything but tensors and plain values.
    """
    if foreign := foreign_content(io.BytesIO(content)):
        raise TorchFileError(foreign)
    if content.startswith(b"PK"):
        _check_archive(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the bytes of a damaged file can raise anything
        raise TorchFileError(f"torch cannot read it: {load_failure(error)}") from error


def load_failure(error: BaseException) -> str:
    """Return in one line why ``torch.load`` failed; of any other error its first line.

    torch's own first line advises to switch ``weights_only`` off, which would run the program in the file.
    """
    text = str(error)
    if "weights_only" not in text:
        return first_line(error)
    if found := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", text):
        return f"the file holds {found[1]}, which is neither a tensor nor a plain value"
    return "the file is not a pickle of tensors and plain values"


def _check_archive(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            damaged = None if compressed else archive.testzip()
    except Exception as error:  # as above
        raise TorchFileError(f"its zip archive is damaged or cut short: {first_line(error)}") from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise TorchFileError("it is a TorchScript program, not weights")
    if compressed:  # a small file could unpack to any size
        raise TorchFileError(f"{compressed[0]} in its zip archive is compressed, which torch.save does not do")
    if damaged is not None:
        raise TorchFileError(f"it is damaged: the checksum of {damaged} in its zip archive is wrong")
