"""Data sets in the four idx files of MNIST: training images and labels, test images and labels, each in gzip."""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import Source, grey_source
from gitdist.errors import DataError

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def read_idx_files(files: Sequence[Path], name: str, class_names: tuple[str, ...]) -> Source:
    """Return the 28x28 grey images of the four files, in the order of ``IDX_FILES``.

    Raises:
        DataError: a file is damaged or not of the idx form.
    """
    return grey_source([_read_idx(file) for file in files], files, name, class_names)


def _read_idx(file: Path) -> NDArray[np.uint8]:
    """Read one idx file: two zero bytes, type 8 (uint8), the number of axes, big-endian sizes, then the values."""
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"an idx file must be whole gzip, but {file} is not ({error}); get it anew") from error
    num_axes = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * num_axes or not num_axes:
        raise DataError(
            f"an idx file of bytes must begin with 00 00 08, but {file} begins with {content[:4].hex(' ')}; get it anew"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_axes, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if values.size != math.prod(shape):
        raise DataError(
            f"an idx file must hold what its header says, {math.prod(shape)} values, but {file} has {values.size}; "
            "get it anew"
        )
    return values.reshape(shape)
