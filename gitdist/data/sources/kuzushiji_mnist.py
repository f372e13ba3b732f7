"""Kuzushiji-MNIST (Clanuwat et al. 2018): 60,000 training and 10,000 test images of 10 hiragana, 28x28 grey."""

from collections.abc import Sequence
from pathlib import Path

from gitdist.data.sources.base import Source
from gitdist.data.sources.idx import IDX_FILES, read_idx_files
from gitdist.data.sources.place import Place

_CLASS_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def _download(cache: Path) -> None:
    from gitdist.torchvision_cpu import torchvision

    torchvision.datasets.KMNIST(str(cache), download=True)


PLACE = Place(
    title="Kuzushiji-MNIST",
    name="kuzushiji-mnist",
    files=IDX_FILES,
    downloaded="KMNIST/raw",
    download=_download,
    remedy="set data.path to the folder of the four idx files",
)


def read(files: Sequence[Path]) -> Source:
    """Return the images of the four idx files: training images and labels, test images and labels.

    Raises:
        DataError: a file is damaged or not of the idx form.
    """
    return read_idx_files(files, "kuzushiji-mnist", _CLASS_NAMES)
