"""What a benchmark tells: figures, ratios against their targets, and where they were measured; a table and JSON."""

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from gitdist.bench.timing import Spread
from gitdist.disk import disk_errors, write_atomic

_RULES = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure: its name, its values over the repeats, and the unit."""

    name: str
    spread: Spread
    unit: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure with a target, which its median meets or not; None = nothing is promised for these settings.

    ``arithmetic`` is the value that counting the work of both sides gives, where that can be said. A ``binding``
    target that is not met is an error.
    """

    name: str
    spread: Spread
    rule: Literal[">=", "<=", "=="]
    target: float | None
    unit: str = ""
    arithmetic: float | None = None
    binding: bool = False

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
        DiskError: the disk does not take it.
    """
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, (json.dumps(result, indent=2) + "\n").encode())


def figure_table(name: str, header: Mapping[str, Any], measurement: Measurement) -> Table:
    """Return the table of a benchmark's figures."""
    where = ", ".join(
        (
            f"{header['device']} ({header['gpu'] or header['cpu']})",
            counted(header["cores"], "core"),
            counted(header["repeats"], "repeat"),
        )
    )
    table = _table(f"{name}: {where}", "figure")
    table.add_column("unit")
    for figure in measurement.figures:
        table.add_row(figure.name, *_readable_spread(figure.spread), figure.unit)
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the table of what has a target: spread, target and whether it was met."""
    table = _table(None, "ratio or target")
    with_arithmetic = any(each.arithmetic is not None for each in verdicts)
    if with_arithmetic:
        table.add_column("arithmetic", justify="right")
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("met")
    for each in verdicts:
        cells = [each.name, *_readable_spread(each.spread)]
        if with_arithmetic:
            cells.append("" if each.arithmetic is None else readable(each.arithmetic))
        table.add_row(*cells, *_judged(each))
    return table


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 trial``, ``2 trials``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def readable(value: float) -> str:
    """Return a figure with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(title: str | None, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for column in ("median", "least", "greatest"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _readable_spread(values: Spread) -> tuple[str, str, str]:
    return readable(values.median), readable(values.lowest), readable(values.highest)


def _judged(verdict: Verdict) -> tuple[str, str]:
    if verdict.target is None:
        return "none", ""
    unit = f" {verdict.unit}" if verdict.unit else ""
    return f"{verdict.rule} {verdict.target:g}{unit}", "yes" if verdict.met else "NO"


def _verdict_values(verdict: Verdict) -> dict[str, Any]:
    aim = {"rule": verdict.rule, "target": verdict.target, "met": verdict.met, "unit": verdict.unit}
    return {"name": verdict.name, **asdict(verdict.spread), **aim, "arithmetic": verdict.arithmetic}
