"""What a benchmark tells: figures, ratios against their targets, and where they were measured; a table and JSON."""

import json
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from gitdist.bench.timing import Spread
from gitdist.disk import disk_trouble, write_atomic

_RULES = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure: its name, its values over the repeats, and the unit."""

    name: str
    spread: Spread
    unit: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure with a target, which its median meets or not; None = nothing is promised for these settings."""

    name: str
    spread: Spread
    rule: Literal[">=", "<=", "=="]
    target: float | None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None where there is none."""
        return None if self.target is None else bool(_RULES[self.rule](self.spread.median, self.target))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All that one benchmark found; ``notes`` say what was left out and how sides were set."""

    figures: tuple[Figure, ...]
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()


def as_json(name: str, header: Mapping[str, Any], measurement: Measurement) -> dict[str, Any]:
    """Return one benchmark's result as JSON values.

    Args:
        name: the benchmark's.
        header: where and with what it was measured.
        measurement: what it found.
    """
    return {
        "benchmark": name,
        "header": dict(header),
        "figures": [{"name": each.name, **asdict(each.spread), "unit": each.unit} for each in measurement.figures],
        "ratios": [_verdict_values(each) for each in measurement.verdicts],
        "notes": list(measurement.notes),
    }


def write_result(place: Path, result: Mapping[str, Any]) -> None:
    """Write a result to ``place``.

    Raises:
        DiskTrouble: the disk does not take it.
    """
    with disk_trouble(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, (json.dumps(result, indent=2) + "\n").encode())


def figure_table(name: str, header: Mapping[str, Any], measurement: Measurement) -> Table:
    """Return the table of a benchmark's figures."""
    where = (
        f"{header['device']} ({header['gpu'] or header['cpu']}), {header['cores']} cores, {header['repeats']} repeats"
    )
    table = Table(title=f"{name}: {where}", title_justify="left", title_style="bold")
    table.add_column("figure")
    for column in ("median", "least", "greatest"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    for figure in measurement.figures:
        values = (figure.spread.median, figure.spread.lowest, figure.spread.highest)
        table.add_row(figure.name, *(readable(value) for value in values), figure.unit)
    return table


def verdict_line(verdict: Verdict) -> str:
    """Return one ratio with its spread, its target and whether it was met."""
    found = verdict.spread
    unit = f" {verdict.unit}" if verdict.unit else ""
    told = f"{verdict.name}: {readable(found.median)}{unit} ({readable(found.lowest)} to {readable(found.highest)})"
    if verdict.target is None:
        return f"{told}; no target for these settings"
    return f"{told}; target {verdict.rule} {verdict.target:g}{unit}: {'met' if verdict.met else 'NOT met'}"


def readable(value: float) -> str:
    """Return a figure with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict_values(verdict: Verdict) -> dict[str, Any]:
    aim = {"rule": verdict.rule, "target": verdict.target, "met": verdict.met, "unit": verdict.unit}
    return {"name": verdict.name, **asdict(verdict.spread), **aim}
