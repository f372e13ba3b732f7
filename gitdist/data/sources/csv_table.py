"""A CSV table with a row for each image: path, label, and if named a split and a group, in ``data.columns``.

The first row has the names of the columns. Fields are separated by commas, semicolons or tabs, whichever the first row
has most of; they may be quoted. Splits are train, val (or valid, validation) and test. Labels are integers counted from
0, or names; ``data.classes`` is a file with one class name per line.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gitdist.data import SPLITS
from gitdist.data.sources.listing import ListedSource, Listing, read_class_names, read_text
from gitdist.data.sources.own_images import SPLIT_NAMES
from gitdist.errors import DataError
from gitdist.input_file import expand_home
from gitdist.spec import DataSpec, unknown_name

_DELIMITERS = ",;\t"


class _CsvTable(ListedSource):
    def location(self) -> str:
        return "any images below data.path with a row each in the CSV data.table"

    def find(self, spec: DataSpec) -> Sequence[Path]:
        return [expand_home(name) for name in (spec.table, spec.classes) if name]

    def list_images(self, spec: DataSpec, folder: Path) -> Listing:
        file = expand_home(spec.table or "")
        named = spec.columns.model_dump(exclude_none=True)
        columns, lines = _read_columns(file, named)

        def where(row: int) -> str:
            return f"{file}, line {lines[row]}"

        splits = np.zeros(len(lines), np.int64)
        given = {"train": str(file)}
        if "split" in columns:
            numbers = {value: SPLIT_NAMES.get(value.lower()) for value in set(columns["split"])}
            for row, value in enumerate(columns["split"] if None in numbers.values() else ()):
                if numbers[value] is None:
                    known = list(SPLIT_NAMES)
                    raise DataError(f"{where(row)}: column '{named['split']}': {unknown_name('split', value, known)}")
            splits = np.array([SPLITS.index(numbers[value] or "") for value in columns["split"]], np.int64)
            given = {split: f"the {split} rows of {file}" for split in SPLITS if split in numbers.values()}
            if "train" not in given:
                raise DataError(f"{file} must have rows of the split train, but has only {', '.join(given)}; add some")
        if "" in columns.get("group", ()):
            line = where(columns["group"].index(""))
            raise DataError(
                f"{line}: every row must have a group in column '{named['group']}', but it is empty; fill it"
            )
        return Listing(
            name=folder.name,
            folder=folder,
            paths=columns["image"],
            labels=columns["label"],
            splits=splits,
            groups=columns.get("group"),
            class_names=read_class_names(expand_home(spec.classes)) if spec.classes else None,
            given=given,
            where=where,
        )


def _read_columns(file: Path, named: dict[str, str]) -> tuple[dict[str, list[str]], list[int]]:
    """Return the values of each named column, by its meaning, and the line in which each row begins."""
    text = read_text(file)
    delimiter = max(_DELIMITERS, key=text.lstrip("\r\n").partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns: dict[str, list[str]] = {meaning: [] for meaning in named}
    lines: list[int] = []
    line = 1
    try:
        header = [name.strip() for name in next(row for row in reader if row)]
        chosen = [(_find(file, header, name), columns[meaning]) for meaning, name in named.items()]
        line = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                for position, values in chosen:
                    values.append(row[position])
                lines.append(line)
            elif row:
                raise DataError(
                    f"{file}, line {line}: a row must have {len(header)} fields like the first one, but it has "
                    f"{len(row)}; correct it (a field with '{delimiter}' or a line break must be in quotes)"
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: a row must be valid CSV, but it is not ({error}); correct it") from None
    if not lines:
        raise DataError(f"{file} must have a row for each image, but has only the names of its columns; add rows")
    return {meaning: [value.strip() for value in values] for meaning, values in columns.items()}, lines


def _find(file: Path, header: Sequence[str], name: str) -> int:
    if name not in header:
        raise DataError(f"{file}: data.columns: {unknown_name('column', name, list(dict.fromkeys(header)))}")
    if header.count(name) > 1:
        raise DataError(f"the columns of a table must differ, but {file} has '{name}' twice; rename one of them")
    return header.index(name)


CSV_TABLE = _CsvTable()
