"""The per-class table and figure of one trial, from its last evaluated row."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gitdist.disk import write_atomic
from gitdist.study.files.json_files import Description, check_json
from gitdist.study.files.rows import read_rows
from gitdist.trial.epoch_row import EpochRow

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe-Ito, for colour-blind readers


def write_per_class(directory: Path) -> tuple[Path, ...]:
    """Write ``per_class.parquet`` and ``per_class.png`` of the trial in ``directory``; if it has evaluated rows.

    Files that are newer than the rows are not rewritten. If trial.json is missing, nothing is written.

    Raises:
        DamagedFileError: trial.json is damaged.
    """
    rows = directory / "rows.jsonl"
    row = next((row for row in reversed(read_rows(rows)) if row.per_class), None)
    description = check_json(directory / "trial.json", Description)
    if row is None or description is None or "classes" not in description:
        return ()
    parquet, picture = directory / "per_class.parquet", directory / "per_class.png"
    if not all(file.exists() and file.stat().st_mtime > rows.stat().st_mtime for file in (parquet, picture)):
        table = _table(row, description["classes"])
        figure = _figure(table, f"{description.get('title', directory.name)}, epoch {row.epoch}, validation")
        _write(parquet, partial(pq.write_table, table))
        _write(picture, partial(figure.savefig, format="png", dpi=120))
    return parquet, picture


def _table(row: EpochRow, classes: dict[str, Any]) -> pa.Table:
    """Return one line per class: name, class size, validation accuracy and eKLD (nats); the largest class first."""
    sizes = np.asarray(classes["sizes"])
    order = np.argsort(-sizes, kind="stable")
    columns: dict[str, Any] = {
        "class_name": [classes["names"][index] for index in order],
        "class_size": sizes[order],
    }
    for column in ("accuracy", "ekld"):
        values = row.per_class.get(f"{column}_per_class")
        if values is not None:
            columns[column] = np.asarray(values, dtype=np.float64)[order]
    return pa.table(columns)


def _figure(table: pa.Table, title: str) -> Figure:
    """Return accuracy and eKLD of each class against its class size (log axis)."""
    panels = [name for name in ("ekld", "accuracy") if name in table.column_names]
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axis, table, name)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw_panel(axis: Axes, table: pa.Table, name: str) -> None:
    sizes = table["class_size"].to_numpy()
    label, colour = ("eKLD (nats, 0 = invariant)", _BLUE) if name == "ekld" else ("accuracy", _ORANGE)
    axis.plot(sizes, table[name].to_numpy(), marker="o", markersize=5, linewidth=1, color=colour)
    if len(set(sizes.tolist())) > 1:
        axis.set_xscale("log")
    axis.set_xlabel("class size (training images)")
    axis.set_ylabel(label)
    axis.set_ylim(bottom=0, top=1.02 if name == "accuracy" else None)
    axis.grid(alpha=0.3)


def _write(file: Path, save: Callable[[io.BytesIO], object]) -> None:
    content = io.BytesIO()
    save(content)
    write_atomic(file, content.getvalue())
