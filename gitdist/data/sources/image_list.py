"""Image lists as ImageNet-LT, Places-LT and iNaturalist publish them: one text file per split.

Each line is the path of an image, relative to ``data.path``, spaces or a tab, and its label, an integer counted from 0
or a name. Paths may have spaces: the last field is the label. After a tab, names may have spaces too. Empty lines and a
byte order mark are skipped, and lines may end as on Windows. ``data.classes`` is a file with one class name per line.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gitdist.data import SPLITS
from gitdist.data.sources.listing import ListedSource, Listing, read_class_names, read_text
from gitdist.errors import DataError
from gitdist.input_file import expand_home
from gitdist.spec import DataSpec

_BLANK = " \t\r"


class _ImageLists(ListedSource):
    def location(self) -> str:
        return "any images below data.path that the files data.train, data.validation and data.test list"

    def find(self, spec: DataSpec) -> Sequence[Path]:
        classes = [expand_home(spec.classes)] if spec.classes else []
        return [*_lists(spec).values(), *classes]

    def list_images(self, spec: DataSpec, folder: Path) -> Listing:
        lists = _lists(spec)
        paths: list[str] = []
        labels: list[str] = []
        lines: list[int] = []
        splits: list[int] = []
        for split, file in lists.items():
            _read_list(file, paths, labels, lines)
            splits += [SPLITS.index(split)] * (len(paths) - len(splits))

        def where(row: int) -> str:
            return f"{lists[SPLITS[splits[row]]]}, line {lines[row]}"

        return Listing(
            name=folder.name,
            folder=folder,
            paths=paths,
            labels=labels,
            splits=np.array(splits, np.int64),
            class_names=read_class_names(expand_home(spec.classes)) if spec.classes else None,
            given={split: str(file) for split, file in lists.items()},
            where=where,
        )


def _lists(spec: DataSpec) -> dict[str, Path]:
    """Return the list of each split that is given."""
    named = {"train": spec.train, "validation": spec.validation, "test": spec.test}
    return {split: expand_home(name) for split, name in named.items() if isinstance(name, str)}


def _read_list(file: Path, paths: list[str], labels: list[str], lines: list[int]) -> None:
    """Append the path, the label and the number of each line."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        line = line.strip(_BLANK)
        if not line:
            continue
        path, _, label = line.rpartition("\t" if "\t" in line else " ")
        if not path:
            raise DataError(
                f"{file}, line {number}: a line must be the path of an image, a space or a tab, and a label, but it is "
                f"'{line}'; correct it"
            )
        paths.append(path.rstrip(_BLANK))
        labels.append(label.lstrip(_BLANK))
        lines.append(number)


IMAGE_LISTS = _ImageLists()
