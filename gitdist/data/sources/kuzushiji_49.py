"""Kuzushiji-49 (Clanuwat et al. 2018): 232,365 training and 38,547 test images of 49 hiragana, 28x28 grey.

The official files are k49-{train,test}-{imgs,labels}.npz, each with one array under the key arr_0. Classes are named in
Latin letters, so that any font can show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import Source, grey_source
from gitdist.data.sources.npz import read_arrays
from gitdist.data.sources.place import Place, fetch, file_md5
from gitdist.errors import DataError

# Those of the two label files are not known here: their zip checksums and their form are checked when they are read.
OFFICIAL_MD5 = {
    "k49-train-imgs.npz": "7ac088b20481cf51dcd01ceaab89d821",
    "k49-test-imgs.npz": "d352e201d846ce6b94f42c990966f374",
}
_FILES = ("k49-train-imgs.npz", "k49-train-labels.npz", "k49-test-imgs.npz", "k49-test-labels.npz")
_URL = "http://codh.rois.ac.jp/kmnist/dataset/k49"
_KEY = "arr_0"
_CLASS_NAMES = (
    *("a", "i", "u", "e", "o"),
    *("ka", "ki", "ku", "ke", "ko"),
    *("sa", "shi", "su", "se", "so"),
    *("ta", "chi", "tsu", "te", "to"),
    *("na", "ni", "nu", "ne", "no"),
    *("ha", "hi", "fu", "he", "ho"),
    *("ma", "mi", "mu", "me", "mo"),
    *("ya", "yu", "yo"),
    *("ra", "ri", "ru", "re", "ro"),
    *("wa", "wi", "we", "wo", "n", "iteration mark"),
)


def _download(cache: Path) -> None:
    for name in _FILES:
        fetch(f"{_URL}/{name}", cache / "kuzushiji-49" / name, OFFICIAL_MD5.get(name))


PLACE = Place(
    title="Kuzushiji-49",
    name="kuzushiji-49",
    files=_FILES,
    downloaded="kuzushiji-49",
    download=_download,
    remedy="set data.path to the folder of the four k49-*.npz files",
)


def read(files: Sequence[Path], md5: Mapping[str, str] = OFFICIAL_MD5) -> Source:
    """Return the images of the four npz files: training images and labels, test images and labels.

    Args:
        files: in that order.
        md5: the md5 that a file of this name must have; of a name that is not here only the form is checked.

    Raises:
        DataError: a file is damaged, is not the official one or is not of its form.
    """
    for file in files:
        _check_md5(file, md5.get(file.name))
    arrays = [_read_array(file) for file in files]
    return replace(grey_source(arrays, files, "kuzushiji-49", _CLASS_NAMES), repeats=True)


def _check_md5(file: Path, expected: str | None) -> None:
    if expected is None:
        return
    try:
        found = file_md5(file)
    except OSError as error:
        raise DataError(f"a source's files must be readable, but {file} is not ({error.strerror})") from error
    if found != expected:
        raise DataError(f"{file} must have the md5 {expected}, but it has {found}; get it anew from {_URL}/{file.name}")


def _read_array(file: Path) -> NDArray[np.uint8]:
    arrays = read_arrays(file, (_KEY,))
    if _KEY not in arrays or arrays[_KEY].dtype != np.uint8:
        found = f"{_KEY} of {arrays[_KEY].dtype}" if _KEY in arrays else f"no {_KEY}"
        raise DataError(f"a file of Kuzushiji-49 must have {_KEY} of uint8, but {file} has {found}; get it anew")
    return arrays[_KEY].astype(np.uint8, copy=False)
