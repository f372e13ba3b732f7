"""Data sets in the four idx files of MNIST, each with 60,000 training and 10,000 test images, 28x28 grey.

Fashion-MNIST (Xiao et al. 2017) and Kuzushiji-MNIST (Clanuwat et al. 2018).
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import PublishedSource, SourceImages, grey_images
from gitdist.errors import DataError, first_line
from gitdist.input_file import check_memory, foreign_content, open_input
from gitdist.spec import DataSpec

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True, kw_only=True)
class _IdxSource(PublishedSource):
    files: tuple[str, ...] = IDX_FILES
    class_names: tuple[str, ...]

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        return grey_images([_read_idx(file) for file in files], files, self.name, self.class_names)


def _read_idx(file: Path) -> NDArray[np.uint8]:
    """Read one idx file: two zero bytes, type 8 (uint8), the number of axes, big-endian sizes, then the values."""
    with open_input(file) as stream:
        try:
            with gzip.open(stream) as content:
                return _read_array(file, content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            reason = foreign_content(stream) or first_line(error)
            raise DataError(f"{file} must be complete gzip, but is not ({reason}); download it again") from error


def _read_array(file: Path, content: gzip.GzipFile) -> NDArray[np.uint8]:
    start = content.read(4)
    num_axes = start[3] if len(start) > 3 else 0
    sizes = content.read(4 * num_axes)
    if start[:3] != b"\0\0\x08" or not 1 <= num_axes <= 3 or len(sizes) < 4 * num_axes:
        rule = f"{file} must begin with 00 00 08, the number of axes (1 to 3) and their sizes"
        raise DataError(f"{rule}, but begins with {(start + sizes)[:16].hex(' ')}; download it again")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    check_memory(math.prod(shape), f"{file}, unpacked,")
    values = np.frombuffer(content.read(math.prod(shape) + 1), np.uint8)  # at the end, gzip compares the checksum
    if values.size != math.prod(shape):
        found = f"{values.size}" if values.size < math.prod(shape) else "more"
        raise DataError(f"{file} must have {math.prod(shape)} values, but has {found}; download it again")
    return values.reshape(shape)


FASHION_MNIST = _IdxSource(
    title="Fashion-MNIST",
    name="fashion-mnist",
    cache_folder="FashionMNIST/raw",
    system_folder=Path("/usr/share/datasets/fashion-mnist"),  # of Debian's package
    torchvision_class="FashionMNIST",
    remedy="install the package dataset-fashion-mnist or set data.path to the folder of the four idx files",
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
)
KUZUSHIJI_MNIST = _IdxSource(
    title="Kuzushiji-MNIST",
    name="kuzushiji-mnist",
    cache_folder="KMNIST/raw",
    torchvision_class="KMNIST",
    remedy="set data.path to the folder of the four idx files",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)
