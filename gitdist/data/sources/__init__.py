"""Official images and labels of a data set; every source is one module that finds its files and reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitdist.data.sources import digits, fashion_mnist, gtsrb, images, kuzushiji_49, kuzushiji_mnist, npz
from gitdist.data.sources.base import Source, without_classes, without_groups
from gitdist.data.sources.cifar import CIFAR_10, CIFAR_100
from gitdist.data.sources.place import Place
from gitdist.errors import DataError
from gitdist.spec import DataSpec

__all__ = ["Source", "list_sources", "load_source", "row_names", "source_digest"]

Read = Callable[[Sequence[Path], DataSpec], Source]


@dataclass(frozen=True)
class _Kind:
    """How to find a source's files given data.path, to read them, and to say where they are."""

    find: Callable[[str | None], Sequence[Path]]
    read: Read
    where: Callable[[], str]


def _whole(read: Callable[[Sequence[Path]], Source]) -> Read:
    def read_kept(files: Sequence[Path], spec: DataSpec) -> Source:
        source = without_classes(read(files), spec.exclude)
        return without_groups(source) if spec.group == "none" else source

    return read_kept


def _published(place: Place, read: Callable[[Sequence[Path]], Source]) -> _Kind:
    return _Kind(place.find, _whole(read), place.where)


_KINDS = {
    "digits": _Kind(digits.find, _whole(digits.read), digits.where),
    "fashion-mnist": _published(fashion_mnist.PLACE, fashion_mnist.read),
    "kuzushiji-mnist": _published(kuzushiji_mnist.PLACE, kuzushiji_mnist.read),
    "kuzushiji-49": _published(kuzushiji_49.PLACE, kuzushiji_49.read),
    "cifar-10": _published(CIFAR_10.place, CIFAR_10.read),
    "cifar-100": _published(CIFAR_100.place, CIFAR_100.read),
    "gtsrb": _published(gtsrb.PLACE, gtsrb.read),
    "images": _Kind(images.find, images.read, images.where),
    "npz": _Kind(npz.find, _whole(npz.read), npz.where),
}
_digests: dict[tuple[str | int, ...], str] = {}


def list_sources() -> dict[str, str]:
    """Return each source's name with the place of its files here, or what to do to have them."""
    return {name: kind.where() for name, kind in _KINDS.items()}


def load_source(spec: DataSpec) -> Source:
    """Read the official training and test images of a source, without the classes that are left out.

    Args:
        spec: names the source and, where it does not lie in its usual place, its folder.

    Raises:
        DataError: a file is missing, damaged or not of the form it claims.
    """
    kind = _KINDS[spec.source]
    return kind.read(kind.find(spec.path), spec)


def row_names(spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the file of each training and each test row where the user knows the images by their files, else None."""
    return images.row_names(images.find(spec.path), spec) if spec.source == "images" else None


def source_digest(spec: DataSpec) -> str:
    """Return the hash of a source's images, labels, class names and notes.

    The files are read once a process and again only when their size or time of change differs.

    Raises:
        DataError: a file is missing, damaged or not of the form it claims.
    """
    kind = _KINDS[spec.source]
    files = kind.find(spec.path)
    identity = (spec.model_dump_json(), *(part for file in files for part in _identity(file)))
    if identity not in _digests:
        _digests[identity] = kind.read(files, spec).digest()
    return _digests[identity]


def _identity(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"a source's files must be readable, but {file} is not ({error.strerror})") from error
    return str(file.resolve()), status.st_size, status.st_mtime_ns
