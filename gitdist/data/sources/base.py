"""Shared code of the data sources: the images they return, locations, downloads, and reading of files."""

import difflib
import hashlib
import os
import secrets
import shutil
import stat
import unicodedata
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

import numpy as np
import yaml
from numpy.typing import NDArray

from gitdist.errors import DataError, first_line
from gitdist.input_file import check_memory, expand_home, foreign_content, input_status, open_input
from gitdist.spec import DataSpec, unknown_name
from gitdist.store.artifact import checksum

_CACHE = Path("~/.cache/gitdist")
_TIMEOUT_S = 60.0  # without a byte from the server, after which a download has failed
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # Unicode: control characters, bytes that are not UTF-8, line breaks
_NAMED = 20  # classes that a message names
_LONGEST = 500  # characters of a setting in a message
_NPY_START = b"\x93NUMPY"


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImages:
    """The official images and labels of a data set, in official order."""

    name: str
    train_images: NDArray[np.uint8]  # [N, C, H, W]
    train_labels: NDArray[np.int64]  # [N], counted from 0
    test_images: NDArray[np.uint8]  # [M, C, H, W]
    test_labels: NDArray[np.int64]  # [M]
    class_names: tuple[str, ...]  # in the order of the labels
    notes: tuple[str, ...] = ()  # one line per thing that was done to the files
    train_groups: NDArray[np.int64] | None = None  # [N], indices into group_names; None = no groups
    test_groups: NDArray[np.int64] | None = None  # [M]
    group_names: tuple[str, ...] = ()
    validation: NDArray[np.bool_] | None = None  # [N], the images that the source reserves for validation; None = none
    keeps_order: bool = False  # training takes the first images of each class (a published convention), not random ones
    repeats: bool = False  # a class with fewer images than its profile asks for repeats them under a fresh nuisance

    def digest(self) -> str:
        """Return the hash of the names and values of all fields except ``name``, which may be that of a folder."""
        state = hashlib.blake2b(digest_size=16)
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                state.update(f"{entry.name}{value.dtype.str}{value.shape}".encode())
                state.update(np.ascontiguousarray(value).data)
            else:
                state.update(f"{entry.name}{value!r}".encode())
        return state.hexdigest()


class DataSource(ABC):
    """Finds and reads the files of one data source."""

    @abstractmethod
    def find(self, spec: DataSpec) -> Sequence[Path]:
        """Return the files in the folder ``spec.path``; None = a standard folder of this source."""

    @abstractmethod
    def location(self) -> str:
        """Describe where the files are on this machine, or how to get them."""

    @abstractmethod
    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        """Return all images in the files that ``find`` returned."""

    def read_selected(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        """Return the images without the classes of ``spec.exclude``, ungrouped if ``spec.group`` is "none"."""
        images = self.read(files, spec)
        check_class_names(images.class_names, images.name)
        check_labels(images.train_labels, len(images.class_names), f"the training split of {images.name}")
        check_labels(images.test_labels, len(images.class_names), f"the test split of {images.name}")
        images = without_classes(images, spec.exclude)
        if spec.group == "none":
            return replace(images, train_groups=None, test_groups=None, group_names=())
        return images

    def row_names(self, files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Return the file of each training and each test image if users know the images by their files, else None."""
        return None

    def inputs(self, files: Sequence[Path], spec: DataSpec) -> Iterable[str | Path]:
        """Return all files that ``read`` depends on, of which ``find`` returned ``files``."""
        return files


@dataclass(frozen=True, kw_only=True)
class PublishedSource(DataSource):
    """A published data set: its files lie in ``data.path`` or a standard folder, or are downloaded.

    Standard folders: ``$GITDIST_DATA/NAME``, a folder of the system, a download in ~/.cache/gitdist.
    """

    title: str  # in messages
    name: str  # of its folder in $GITDIST_DATA
    files: tuple[str, ...]  # paths in the folder, in the order in which they are read
    cache_folder: str  # in ~/.cache/gitdist, filled by ``download``
    system_folder: Path | None = None
    torchvision_class: str = ""  # in torchvision.datasets, downloads the files
    remedy: str  # how to provide the files without a download

    def find(self, spec: DataSpec) -> tuple[Path, ...]:
        """Return the files in ``data.path`` or in the first standard folder that has all of them, or download them."""
        folder = expand_home(spec.path) if spec.path else self._find_folder() or self._download()
        for name in self.files:
            if input_status(folder / name) is None:
                raise DataError(f"{self.title} needs {name}, but {folder} does not have it; {self.remedy}")
        return tuple(folder / name for name in self.files)

    def location(self) -> str:
        """Return the folder of the files, or how to get them."""
        try:
            folder = self._find_folder()
        except DataError as error:
            return str(error)
        return str(folder) if folder else f"not found; {self.remedy}, or have it downloaded to {_CACHE} at first use"

    def download(self, cache: Path) -> None:
        """Download the files into the folder ``cache``."""
        from gitdist.torchvision_cpu import torchvision  # slow to import

        getattr(torchvision.datasets, self.torchvision_class)(str(cache), download=True)

    def _find_folder(self) -> Path | None:
        folders = self._standard_folders()
        return next((folder for folder in folders if all(input_status(folder / name) for name in self.files)), None)

    def _standard_folders(self) -> Iterator[Path]:
        if root := os.environ.get("GITDIST_DATA"):
            yield expand_home(root) / self.name
        if self.system_folder:
            yield self.system_folder
        yield expand_home(_CACHE) / self.cache_folder

    def _download(self) -> Path:
        cache = expand_home(_CACHE)
        try:
            if not cache.is_absolute():
                raise OSError("this user has no home directory")
            self.download(cache)
        except Exception as error:  # network, disk and a broken archive raise anything
            message = f"the download of {self.title} to {cache} failed ({first_line(error)}); {self.remedy}"
            raise DataError(message) from error
        return cache / self.cache_folder


def user_folder(path: str | None, contents: str) -> Path:
    """Return the folder ``data.path``; raise DataError, which names its ``contents``, if it is missing."""
    if path is None:
        raise DataError(f"data.path is missing; set it to a folder with {contents}")
    folder = expand_home(path)
    status = input_status(folder)
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise DataError(f"data.path must be a folder with {contents}, but {folder} is not a folder")
    return folder


def download_file(url: str, file: Path, md5: str | None = None) -> None:
    """Download one file unless it exists; ``file`` appears when it is complete, also with several downloads at once.

    Raises:
        OSError: network or disk fail, or the content has another length or md5.
        HTTPException: the server breaks off or does not speak HTTP.
    """
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}.part")
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as response, open(part, "xb") as stream:
            shutil.copyfileobj(response, stream)
        length, size = response.headers["Content-Length"], str(part.stat().st_size)
        if length not in (None, size):
            raise OSError(f"received {size} of {length} bytes from {url}")
        if md5 is not None and (found := checksum(part, "md5")) != md5:
            raise OSError(f"{url} must have the md5 {md5}, but the download has {found}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def read_npz(file: Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an npz file that are among ``names``.

    Raises:
        DataError: the file cannot be read, is damaged, has anything but plain arrays, or does not fit into memory.
    """
    try:
        with open_input(file) as stream:
            return _read_archive(file, stream, names)
    except DataError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = first_line(error)
        if "pickle" in reason:  # numpy advises to allow pickles, which run code
            reason = "it contains pickled objects"
        raise DataError(f"{file} must be a complete npz of plain arrays, but is not ({reason}); replace it") from error


def _read_archive(file: Path, stream: BinaryIO, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    try:
        archive = zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise ValueError(foreign_content(stream) or first_line(error)) from error
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    chosen = {name: members[name] for name in names if name in members}
    check_memory(sum(member.file_size for member in chosen.values()), f"{file}, unpacked,")
    arrays = {}
    for name, member in chosen.items():
        with archive.open(member) as content:
            if content.read(len(_NPY_START)) != _NPY_START:
                raise ValueError(f"its {name} is not an array")
            content.seek(0)
            with warnings.catch_warnings(action="ignore"):  # of a file that Python 2 wrote
                arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
            if content.read(1):  # at the end, zipfile compares the checksum
                raise ValueError(f"its {name} has more bytes than its header says")
    return arrays


def grey_images(
    arrays: Sequence[NDArray[np.uint8]], files: Sequence[Path], name: str, class_names: tuple[str, ...]
) -> SourceImages:
    """Return a data set of 28x28 grey images from training images ``[N, 28, 28]`` and labels ``[N]``, and test ones.

    Raises:
        DataError: an array has another shape; the message names its file.
    """
    train_images, train_labels, test_images, test_labels = arrays
    for images, labels, file in ((train_images, train_labels, files[0]), (test_images, test_labels, files[2])):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            shapes = f"{list(images.shape)} and its label file {list(labels.shape)}"
            raise DataError(
                f"{file} must have [N, 28, 28] and its label file [N], but has {shapes}; download them again"
            )
    return SourceImages(
        name=name,
        train_images=train_images[:, None],
        train_labels=train_labels.astype(np.int64),
        test_images=test_images[:, None],
        test_labels=test_labels.astype(np.int64),
        class_names=class_names,
    )


def number_groups(names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the group of each image as an index, int64 ``[N]``, and the distinct names, from each image's name."""
    indices = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([indices[name] for name in names], dtype=np.int64), tuple(indices)


def without_classes(images: SourceImages, exclude: Sequence[str]) -> SourceImages:
    """Return the images without those of some classes; the labels of the others are renumbered in their order."""
    check_excluded(exclude, images.class_names)
    if not exclude:
        return images
    kept = np.array([name not in exclude for name in images.class_names])
    new_labels = np.cumsum(kept) - 1
    train, test = kept[images.train_labels], kept[images.test_labels]
    counts = np.bincount(images.train_labels, minlength=len(kept))
    excluded = [f"{name} (training images: {counts[images.class_names.index(name)]:,})" for name in exclude]
    return replace(
        images,
        train_images=images.train_images[train],
        train_labels=new_labels[images.train_labels[train]],
        train_groups=None if images.train_groups is None else images.train_groups[train],
        validation=None if images.validation is None else images.validation[train],
        test_images=images.test_images[test],
        test_labels=new_labels[images.test_labels[test]],
        test_groups=None if images.test_groups is None else images.test_groups[test],
        class_names=tuple(name for name in images.class_names if name not in exclude),
        notes=(*images.notes, f"left out by data.exclude: {', '.join(excluded)}"),
    )


def check_excluded(exclude: Sequence[str], class_names: Sequence[str]) -> None:
    """Raise DataError if a class to exclude does not exist."""
    for name in exclude:
        if name not in class_names:
            nearest = difflib.get_close_matches(name, class_names, n=_NAMED, cutoff=0)
            raise DataError(f"data.exclude: {unknown_name('class', name, nearest)}")


def check_class_names(names: Sequence[str], where: str) -> None:
    """Raise DataError if a class has no name, one that cannot be printed, or that of another class."""
    known: set[str] = set()
    for name in names:
        if not name.strip() or any(unicodedata.category(char) in _UNPRINTABLE for char in name):
            raise DataError(f"a class name must be printable UTF-8 text, but {where} has {name!r}; rename the class")
        seen = unicodedata.normalize("NFC", name).strip()
        if seen in known:
            raise DataError(f"class names must differ, but {where} has '{name}' twice; rename one of the classes")
        known.add(seen)


def exclusion(names: Sequence[str]) -> str:
    """Return the setting that leaves classes out, in words that a message can end with."""
    text = yaml.safe_dump(list(names), default_flow_style=True, allow_unicode=True, width=10**6)  # quotes 007 and no
    if len(text) > _LONGEST:
        return f"leave {len(names)} classes out by data.exclude"
    return f"set data.exclude: {text.strip()}"


def check_labels(labels: NDArray[np.int64], num_classes: int, where: str) -> None:
    """Raise DataError if a label has no class; ``where`` names the split."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise DataError(f"labels must be 0..{num_classes - 1}, but {where} has {outside[0]}; count classes from 0")
