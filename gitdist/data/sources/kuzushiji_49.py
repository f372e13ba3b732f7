"""Kuzushiji-49 (Clanuwat et al. 2018): 232,365 training and 38,547 test images of 49 hiragana, 28x28 grey.

The official files are k49-{train,test}-{imgs,labels}.npz, each with one array under the key arr_0. The class names are
in Latin letters, which every font has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import PublishedSource, SourceImages, download_file, grey_images, read_npz
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from gitdist.store.artifact import checksum

# Those of the two label files are not known here: their zip checksums and their format are checked when they are read.
_OFFICIAL_MD5 = {
    "k49-train-imgs.npz": "7ac088b20481cf51dcd01ceaab89d821",
    "k49-test-imgs.npz": "d352e201d846ce6b94f42c990966f374",
}
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


@dataclass(frozen=True, kw_only=True)
class _Kuzushiji49(PublishedSource):
    md5: Mapping[str, str] = field(default_factory=lambda: _OFFICIAL_MD5)  # by file name; others are not checked

    def download(self, cache: Path) -> None:
        for name in self.files:
            download_file(f"{_URL}/{name}", cache / self.cache_folder / name, self.md5.get(name))

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        arrays = [_read_array(file) for file in files]
        for file in files:
            expected = self.md5.get(file.name)
            if expected is not None and (found := checksum(file, "md5")) != expected:
                raise DataError(f"{file} must have the md5 {expected}, but has {found}; download it from {_URL} again")
        return replace(grey_images(arrays, files, self.name, _CLASS_NAMES), repeats=True)


def _read_array(file: Path) -> NDArray[np.uint8]:
    array = read_npz(file, (_KEY,)).get(_KEY)
    if array is None or array.dtype != np.uint8:
        found = f"no {_KEY}" if array is None else f"{_KEY} of {array.dtype}"
        raise DataError(f"{file} must have {_KEY} of uint8, but has {found}; download it again")
    return array.astype(np.uint8, copy=False)


KUZUSHIJI_49 = _Kuzushiji49(
    title="Kuzushiji-49",
    name="kuzushiji-49",
    files=("k49-train-imgs.npz", "k49-train-labels.npz", "k49-test-imgs.npz", "k49-test-labels.npz"),
    cache_folder="kuzushiji-49",
    remedy="set data.path to the folder of the four k49-*.npz files",
)
