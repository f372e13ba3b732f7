"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images, 32x32 RGB, from the python batches.

The batches are pickles, which are programs. The unpickler here permits arrays and plain values only.
"""

import io
import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import PublishedSource, SourceImages
from gitdist.errors import DataError, first_line
from gitdist.input_file import read_input
from gitdist.spec import DataSpec

_VALUES = 3 * 32 * 32
_PERMITTED = {("numpy", "ndarray"), ("numpy", "dtype")}
_RECONSTRUCT = ("numpy.core.multiarray", "numpy._core.multiarray")


@dataclass(frozen=True, kw_only=True)
class _CifarSource(PublishedSource):
    labels_key: str
    class_names_key: str

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        *train, test, meta = files
        batches = [_read_batch(file, self.labels_key) for file in train]
        images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        test_images, test_labels = _read_batch(test, self.labels_key)
        return SourceImages(
            name=self.name,
            train_images=images,
            train_labels=labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=_read_names(meta, self.class_names_key),
            keeps_order=True,
        )


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _RECONSTRUCT and name == "_reconstruct":
            return super().find_class("numpy._core.multiarray", name)
        if (module, name) not in _PERMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read_pickle(file: Path) -> dict[str, Any]:
    pickled = read_input(file)
    try:
        _check_memo(pickled)
        content = _PlainUnpickler(io.BytesIO(pickled), encoding="latin1").load()  # written by Python 2
    except Exception as error:  # a damaged pickle can raise anything
        message = f"{file} must be a pickle of arrays and plain values, but is not ({first_line(error)})"
        raise DataError(f"{message}; download the python version again") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} must have a dict, but has a {type(content).__name__}; download it again")
    return content


def _check_memo(pickled: bytes) -> None:
    """Refuse an index that no pickle of this size needs: the unpickler allocates and clears that many slots."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(pickled):
            raise pickle.UnpicklingError(f"it uses slot {argument} of its memo, but has {len(pickled)} bytes")


def _read_batch(file: Path, labels_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = _read_pickle(file)
    data, labels = content.get("data"), content.get(labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_VALUES,) or not len(data):
        found = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else "none"
        raise DataError(f"{file} must have images uint8 [N, {_VALUES}], but has {found}; download it again")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(map(_is_label, labels)):
        raise DataError(f"{file} must have {len(data)} integers '{labels_key}', but does not; download it again")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _is_label(value: object) -> bool:
    return type(value) is int and 0 <= value < 256


def _read_names(file: Path, key: str) -> tuple[str, ...]:
    names = _read_pickle(file).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} must have the list '{key}' of class names, but does not; download it again")
    return tuple(names)


CIFAR_10 = _CifarSource(
    title="CIFAR-10",
    name="cifar-10",
    files=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    cache_folder="cifar-10-batches-py",
    torchvision_class="CIFAR10",
    remedy="set data.path to the folder cifar-10-batches-py of the python version",
    labels_key="labels",
    class_names_key="label_names",
)
CIFAR_100 = _CifarSource(
    title="CIFAR-100",
    name="cifar-100",
    files=("train", "test", "meta"),
    cache_folder="cifar-100-python",
    torchvision_class="CIFAR100",
    remedy="set data.path to the folder cifar-100-python of the python version",
    labels_key="fine_labels",
    class_names_key="fine_label_names",
)
