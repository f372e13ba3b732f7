"""The data sources by name. A new one is a module with a ``DataSource`` and a line in ``SOURCES``."""

import os
from collections.abc import Iterable
from pathlib import Path

from gitdist.data.sources.base import DataSource, SourceImages
from gitdist.data.sources.cifar import CIFAR_10, CIFAR_100
from gitdist.data.sources.csv_table import CSV_TABLE
from gitdist.data.sources.digits import DIGITS
from gitdist.data.sources.gtsrb import GTSRB
from gitdist.data.sources.image_list import IMAGE_LISTS
from gitdist.data.sources.images import IMAGE_FOLDER
from gitdist.data.sources.kuzushiji_49 import KUZUSHIJI_49
from gitdist.data.sources.mnist import FASHION_MNIST, KUZUSHIJI_MNIST
from gitdist.data.sources.npz import NPZ
from gitdist.data.sources.plugin import DATA_PLUGIN
from gitdist.errors import SpecError
from gitdist.spec import DataSpec, unknown_name

SOURCES: dict[str, DataSource] = {  # data.source; a test compares the names with those that DataSpec allows
    "digits": DIGITS,
    "fashion-mnist": FASHION_MNIST,
    "kuzushiji-mnist": KUZUSHIJI_MNIST,
    "kuzushiji-49": KUZUSHIJI_49,
    "cifar-10": CIFAR_10,
    "cifar-100": CIFAR_100,
    "gtsrb": GTSRB,
    "images": IMAGE_FOLDER,
    "list": IMAGE_LISTS,
    "csv": CSV_TABLE,
    "npz": NPZ,
    "plugin": DATA_PLUGIN,
}
_digests: dict[tuple[str, tuple[tuple[str | int, ...], ...]], str] = {}


def source_locations() -> dict[str, str]:
    """Return for each source where its files are on this machine, or how to get them."""
    return {name: source.location() for name, source in SOURCES.items()}


def load_source(spec: DataSpec) -> SourceImages:
    """Read the official images of a source without the classes of ``spec.exclude``.

    Raises:
        DataError: a file is missing, damaged or has another format.
    """
    source = _source(spec)
    return source.read_selected(source.find(spec), spec)


def source_digest(spec: DataSpec) -> str:
    """Return the hash of a source's images, labels, class names and notes.

    A process reads the files once, and again only if their size or modification time changed.
    """
    source = _source(spec)
    files = source.find(spec)
    identity = (repr(spec), tuple(map(_file_identity, source.inputs(files, spec))))
    if identity not in _digests:
        _digests[identity] = source.read_selected(files, spec).digest()
    return _digests[identity]


def row_names(spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the file of each training and each test image if users know the images by their files, else None."""
    source = _source(spec)
    return source.row_names(source.find(spec), spec)


def source_files(spec: DataSpec) -> Iterable[str | Path]:
    """Return the files that a source depends on."""
    source = _source(spec)
    return source.inputs(source.find(spec), spec)


def _source(spec: DataSpec) -> DataSource:
    if spec.source not in SOURCES:
        raise SpecError(f"data.source: {unknown_name('source', spec.source, list(SOURCES))}")
    return SOURCES[spec.source]


def _file_identity(file: str | Path) -> tuple[str | int, ...]:
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # reading it, if it is needed, says why
        return (str(file),)
    return str(file), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
