"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32 RGB, from the python batches.

The batches are pickles, which are programs. They are read by an unpickler that knows arrays and plain values only.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import Source
from gitdist.data.sources.place import Place
from gitdist.errors import DataError

_VALUES = 3 * 32 * 32
_PERMITTED = {("numpy", "ndarray"), ("numpy", "dtype")}
_RECONSTRUCT = ("numpy.core.multiarray", "numpy._core.multiarray")


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One of the two data sets: its name, its files' place, their keys; the last two files are test and meta."""

    name: str
    place: Place
    labels: str
    class_names: str

    def read(self, files: Sequence[Path]) -> Source:
        """Return the images of the training batches, the test batch and the meta file, in official order.

        Raises:
            DataError: a file is damaged, not of the official form or has more than arrays and plain values in it.
        """
        *train, test, meta = files
        parts = [_read_batch(file, self.labels) for file in train]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        test_images, test_labels = _read_batch(test, self.labels)
        return Source(
            name=self.name,
            train_images=images,
            train_labels=labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=_read_names(meta, self.class_names),
            keeps_order=True,
        )


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _RECONSTRUCT and name == "_reconstruct":
            return super().find_class("numpy._core.multiarray", name)
        if (module, name) not in _PERMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read_plain(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            content = _unpickle(stream)
    except OSError as error:
        raise DataError(f"a source's files must be readable, but {file} is not ({error.strerror})") from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        reason = " ".join(str(error).split())
        raise DataError(
            f"a CIFAR batch must be a whole pickle of arrays and plain values, but {file} is not ({reason}); "
            "get the python version anew"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"a CIFAR batch must be a dict, but {file} is a {type(content).__name__}; get it anew")
    return content


def _unpickle(stream: IO[bytes]) -> Any:
    return _PlainUnpickler(stream, encoding="latin1").load()  # written by Python 2


def _read_batch(file: Path, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = _read_plain(file)
    data, labels = content.get("data"), content.get(key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_VALUES,) or not len(data):
        found = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else "none"
        raise DataError(
            f"the images of a CIFAR batch must be uint8 [N, {_VALUES}], but {file} has {found}; get it anew"
        )
    whole = isinstance(labels, list) and len(labels) == len(data) and all(type(label) is int for label in labels)
    if not whole:
        raise DataError(f"a CIFAR batch must have {len(data)} whole numbers '{key}', but {file} has not; get it anew")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _read_names(file: Path, key: str) -> tuple[str, ...]:
    names = _read_plain(file).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"CIFAR's meta file must have the list '{key}' of class names, but {file} has not; get it anew")
    return tuple(names)


def _place(title: str, files: tuple[str, ...], edition: str) -> Place:
    folder = f"{title.lower()}-python" if edition == "CIFAR100" else f"{title.lower()}-batches-py"
    return Place(
        title=title,
        name=title.lower(),
        files=files,
        downloaded=folder,
        download=partial(_download, edition),
        remedy=f"set data.path to the folder {folder} of the python version",
    )


def _download(edition: str, cache: Path) -> None:
    from gitdist.torchvision_cpu import torchvision

    getattr(torchvision.datasets, edition)(str(cache), download=True)


CIFAR_10 = Edition(
    name="cifar-10",
    place=_place(
        "CIFAR-10", (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"), "CIFAR10"
    ),
    labels="labels",
    class_names="label_names",
)
CIFAR_100 = Edition(
    name="cifar-100",
    place=_place("CIFAR-100", ("train", "test", "meta"), "CIFAR100"),
    labels="fine_labels",
    class_names="fine_label_names",
)
