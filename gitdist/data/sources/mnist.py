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
from gitdist.errors import DataError
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
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} must be complete gzip, but is not ({error}); download it again") from error
    num_axes = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * num_axes or not num_axes:
        raise DataError(f"{file} must begin with 00 00 08, but begins with {content[:4].hex(' ')}; download it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_axes, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if values.size != math.prod(shape):
        raise DataError(f"{file} must have {math.prod(shape)} values, but has {values.size}; download it again")
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
