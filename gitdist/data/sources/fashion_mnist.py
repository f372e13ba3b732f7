"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images, 28x28 grey, from the four idx files."""

from collections.abc import Sequence
from pathlib import Path

from gitdist.data.sources.base import Source
from gitdist.data.sources.idx import IDX_FILES, read_idx_files
from gitdist.data.sources.place import Place

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


def _download(cache: Path) -> None:
    from gitdist.torchvision_cpu import torchvision

    torchvision.datasets.FashionMNIST(str(cache), download=True)


PLACE = Place(
    title="Fashion-MNIST",
    name="fashion-mnist",
    files=IDX_FILES,
    downloaded="FashionMNIST/raw",
    download=_download,
    system=Path("/usr/share/datasets/fashion-mnist"),  # of Debian's package
    remedy="install the package dataset-fashion-mnist or set data.path to the folder of the four idx files",
)


def read(files: Sequence[Path]) -> Source:
    """Return the images of the four idx files: training images and labels, test images and labels.

    Raises:
        DataError: a file is damaged or not of the idx form.
    """
    return read_idx_files(files, "fashion-mnist", _CLASS_NAMES)
