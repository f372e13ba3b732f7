"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images, 28x28 grey, from the four idx files."""

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import Source
from gitdist.errors import DataError

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_SYSTEM = Path("/usr/share/datasets/fashion-mnist")
_CACHE = Path("~/.cache/gitdist")
_REMEDY = "install the package dataset-fashion-mnist or set data.path to the folder of the four idx files"


def find(path: str | None) -> Sequence[Path]:
    """Return the four idx files, out of ``path`` or the first usual place that exists.

    Usual places: ``$GITDIST_DATA/fashion-mnist``, the folder of Debian's package, a download into ~/.cache/gitdist.

    Raises:
        DataError: a file is missing, or the download failed.
    """
    folder = Path(path).expanduser() if path else _usual_folder()
    for name in _FILES:
        if not (folder / name).is_file():
            raise DataError(f"Fashion-MNIST needs {name}, but {folder} does not have it; {_REMEDY}")
    return tuple(folder / name for name in _FILES)


def where() -> str:
    """Return where the images are, for a reader."""
    folder = _present_folder()
    return str(folder) if folder else f"not here; {_REMEDY}, or let it be downloaded into {_CACHE} at first use"


def read(files: Sequence[Path]) -> Source:
    """Return the images of the four idx files: training images and labels, test images and labels.

    Raises:
        DataError: a file is damaged or not of the idx form.
    """
    train_images, train_labels, test_images, test_labels = (_read_idx(file) for file in files)
    for images, labels, file in ((train_images, train_labels, files[0]), (test_images, test_labels, files[2])):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise DataError(
                f"images and labels must be [N, 28, 28] and [N], but {file} has {list(images.shape)} "
                f"and its label file {list(labels.shape)}; get the files anew"
            )
    return Source(
        name="fashion-mnist",
        train_images=train_images[:, None],
        train_labels=train_labels.astype(np.int64),
        test_images=test_images[:, None],
        test_labels=test_labels.astype(np.int64),
        class_names=_CLASS_NAMES,
    )


def _usual_folder() -> Path:
    return _present_folder() or _download(_CACHE.expanduser())


def _present_folder() -> Path | None:
    given = os.environ.get("GITDIST_DATA")
    places = [Path(given).expanduser() / "fashion-mnist"] if given else []
    places += [_SYSTEM, _downloaded(_CACHE.expanduser())]
    return next((place for place in places if all((place / name).is_file() for name in _FILES)), None)


def _downloaded(root: Path) -> Path:
    return root / "FashionMNIST" / "raw"


def _download(root: Path) -> Path:
    from gitdist.data.torchvision_cpu import torchvision

    try:
        torchvision.datasets.FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"Fashion-MNIST is not here and its download into {root} failed ({reason}); {_REMEDY}"
        ) from error
    return _downloaded(root)


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
