"""Official images and labels of a data set; every source is one module with a ``find`` and a ``read`` function."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gitdist.data.sources import digits, fashion_mnist, npz
from gitdist.data.sources.base import Source
from gitdist.errors import DataError
from gitdist.spec import DataSpec

__all__ = ["Source", "list_sources", "load_source", "source_digest"]

# name: (files of a source, given data.path; images and labels out of these files)
_SOURCES: dict[str, tuple[Callable[[str | None], Sequence[Path]], Callable[[Sequence[Path]], Source]]] = {
    "digits": (digits.find, digits.read),
    "fashion-mnist": (fashion_mnist.find, fashion_mnist.read),
    "npz": (npz.find, npz.read),
}
_digests: dict[tuple[str | int, ...], str] = {}


def list_sources() -> dict[str, str]:
    """Return each source's name with the place of its files here, or what to do to have them."""
    return {"digits": digits.where(), "fashion-mnist": fashion_mnist.where(), "npz": npz.where()}


def load_source(spec: DataSpec) -> Source:
    """Read the official training and test images of a source.

    Args:
        spec: names the source and, where it does not lie in its usual place, its folder.

    Raises:
        DataError: a file is missing, damaged or not of the form it claims.
    """
    find, read = _SOURCES[spec.source]
    return read(find(spec.path))


def source_digest(spec: DataSpec) -> str:
    """Return the hash of a source's images, labels and class names.

    The files are read once a process and again only when their size or time of change differs.

    Raises:
        DataError: a file is missing, damaged or not of the form it claims.
    """
    find, read = _SOURCES[spec.source]
    files = find(spec.path)
    identity = (spec.source, *(part for file in files for part in _identity(file)))
    if identity not in _digests:
        _digests[identity] = read(files).digest()
    return _digests[identity]


def _identity(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"a source's files must be readable, but {file} is not ({error.strerror})") from error
    return str(file.resolve()), status.st_size, status.st_mtime_ns
