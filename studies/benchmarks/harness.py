"""What all benchmarks share: the study that is measured, the rules of timing, and the report.

Compared sides take turns, each round beginning with the next side, and ratios are taken within a round, so that both
sides saw the same machine:

    warm-up: A B C      repeats: B C A   C A B   A B C      ratio: A / B of each repeat
"""

import argparse
import json
import operator
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import ray
import torch
from rich.console import Console
from rich.table import Table

from gitdist import __version__
from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute, has_bf16_units, set_threads
from gitdist.disk import disk_errors, write_atomic
from gitdist.errors import GitdistError, SpecError
from gitdist.generator.kinds import find_artifact, obtain_artifact
from gitdist.logging import silence_libraries
from gitdist.spec import MunitSpec, StudySpec
from gitdist.spec.file import load_study
from gitdist.store import Store
from gitdist.stream.blocks import resolve_block_size
from gitdist.study.cluster.signals import interruptible
from gitdist.study.files.layout import StudyPaths, open_store

STUDY = Path(__file__).parent / "fashion.yaml"
RULES = {">=": operator.ge, "<=": operator.le, "==": operator.eq}

Name = TypeVar("Name")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A study to measure, with its data set prepared.

    Attributes:
        spec: the study.
        results: the results directory.
        store: its store, with data set and generator.
        dataset: the study's data set.
        repeats: measurements per side.
    """

    spec: StudySpec
    results: Path
    store: Store
    dataset: Dataset
    repeats: int

    @classmethod
    def prepare(cls, spec: StudySpec, results: Path, repeats: int) -> "Setting":
        """Prepare the study's data set in the store of ``results``."""
        results = results.resolve()
        store = open_store(StudyPaths.at(results, spec.name), spec)
        return cls(spec=spec, results=results, store=store, dataset=prepare(spec.data, store), repeats=repeats)

    @property
    def munit(self) -> MunitSpec:
        """The generator's settings.

        Raises:
            SpecError: the study has another kind of generator.
        """
        if not isinstance(self.spec.generator, MunitSpec):
            kind = self.spec.generator.kind
            raise SpecError(f"this benchmark needs generator.kind 'munit', but the study has '{kind}'; pass --study")
        return self.spec.generator

    @property
    def block_size(self) -> int:
        """The draws in a block."""
        return resolve_block_size(self.spec.stream, self.dataset)[0]

    @property
    def serving(self) -> Compute:
        """Device and precision of the study's generator servers."""
        return Compute.resolve(self.spec.stream.precision, self.spec.resources.server.device)

    @property
    def training(self) -> Compute:
        """Device and precision of the study's trials."""
        return Compute.resolve(self.spec.trial.precision, self.spec.resources.trial.device)

    @cached_property
    def artifact(self) -> Path:
        """The directory of the trained generator, which is trained now if the store has none."""
        share = self.spec.resources.training
        compute = Compute.resolve(device=share.device)
        found = find_artifact(self.munit, self.dataset, self.store, compute)
        if found is None:
            say(f"training the generator, {self.munit.steps} steps")
            set_threads(share.cpu)
            found = obtain_artifact(self.munit, self.dataset, self.store, lambda step: None, compute)
            assert found is not None
        return found

    @property
    def tail(self) -> list[int]:
        """The smaller half of the classes that have images: those that augmentation is for."""
        sizes = self.dataset.class_sizes
        filled = [index for index in np.argsort(sizes, kind="stable").tolist() if sizes[index]]
        return sorted(filled[: max(1, len(filled) // 2)])


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured quantity.

    Attributes:
        name: what was measured.
        values: one per repeat.
        unit: of the values.
        rule: how the median must compare with ``target``.
        target: None = none.
        required: whether a missed target is an error.
    """

    name: str
    values: Sequence[float]
    unit: str = ""
    rule: Literal[">=", "<=", "=="] = ">="
    target: float | None = None
    required: bool = False

    @property
    def median(self) -> float:
        """The median over the repeats."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        return None if self.target is None else bool(RULES[self.rule](self.median, self.target))

    def as_json(self) -> dict[str, Any]:
        """Return the figure as JSON values."""
        spread = {"median": self.median, "lowest": min(self.values), "highest": max(self.values)}
        aim = {} if self.target is None else {"rule": self.rule, "target": self.target, "met": self.met}
        return {"name": self.name, **spread, "unit": self.unit, **aim}


def alternate(sides: Mapping[Name, Callable[[], Result]], repeats: int, warm_ups: int = 1) -> dict[Name, list[Result]]:
    """Return the results of each side, one per repeat; in every repeat all sides take their turn."""
    names = list(sides)
    results: dict[Name, list[Result]] = {name: [] for name in names}
    for index in range(warm_ups + repeats):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(sides[name]())
    return {name: found[warm_ups:] for name, found in results.items()}


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of each repeat."""
    return [above / below for above, below in zip(over, under, strict=True)]


def rate(work: Callable[[], int], device: torch.device) -> Callable[[], float]:
    """Return a side that measures what ``work`` returns (samples, images) per second."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def side() -> float:
        synchronize()
        started = time.perf_counter()
        amount = work()
        synchronize()
        return amount / (time.perf_counter() - started)

    return side


def figures_of(rates: Mapping[str, Sequence[float]], unit: str) -> list[Figure]:
    """Return a figure per side."""
    return [Figure(name=name, values=values, unit=unit) for name, values in rates.items()]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 trial``, ``2 trials``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, flush=True)


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return the options of every benchmark."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--study", type=Path, default=STUDY, metavar="FILE", help="the study to measure")
    options.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a study field")
    options.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="results directory")
    options.add_argument("--repeats", type=int, default=repeats, metavar="N", help="measurements per side")
    return options


def run(options: argparse.Namespace, measure: Callable[[Setting], list[Figure]]) -> None:
    """Measure, print the table and write ``RESULTS/benchmarks/SCRIPT.json``; exit with 2 after an error."""
    silence_libraries()
    try:
        with interruptible():
            setting = Setting.prepare(load_study(options.study, options.set), options.results, options.repeats)
            report(Path(sys.argv[0]).stem, setting, measure(setting))
    except KeyboardInterrupt:
        sys.exit(130)
    except GitdistError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def report(name: str, setting: Setting, figures: Sequence[Figure]) -> None:
    """Print the table of the figures and write them as JSON.

    Raises:
        GitdistError: a required target was missed, or the file cannot be written.
    """
    header = describe_machine(setting)
    file = setting.results / "benchmarks" / f"{name}.json"
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    values = {"benchmark": name, "header": header, "figures": [figure.as_json() for figure in figures]}
    write_atomic(file, (json.dumps(values, indent=2) + "\n").encode())
    Console().print(table(f"{name}: {header['gpu'] or header['cpu']}, {counted(header['cores'], 'core')}", figures))
    say(f"written to {file}")
    for figure in figures:
        if figure.required and figure.met is False:
            raise GitdistError(f"{figure.name}: must be {figure.rule} {figure.target:g}, but is {figure.median:g}")


def table(title: str, figures: Sequence[Figure]) -> Table:
    """Return the figures as a table: median, lowest and highest value, and target."""
    shown = Table(title=title, title_justify="left")
    for column in ("figure", "median", "lowest", "highest", "unit", "target", "met"):
        shown.add_column(column, justify="right" if column in ("median", "lowest", "highest") else "left")
    for figure in figures:
        values = (figure.median, min(figure.values), max(figure.values))
        target = "" if figure.target is None else f"{figure.rule} {figure.target:g}"
        met = {None: "", True: "yes", False: "NO"}[figure.met]
        shown.add_row(figure.name, *map(readable, values), figure.unit, target, met)
    return shown


def readable(value: float) -> str:
    """Return a value with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def describe_machine(setting: Setting) -> dict[str, Any]:
    """Return versions, cores, devices, threads, precision, date and the resolved study, as JSON values."""
    on_gpu = "cuda" in (setting.training.device.type, setting.serving.device.type)
    return {
        "versions": {
            "gitdist": __version__,
            "torch": torch.__version__,
            "ray": ray.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "device": "cuda" if on_gpu else "cpu",
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "torch_threads": torch.get_num_threads(),
        "precision": {"trial": setting.training.precision, "generator": setting.serving.precision},
        "bf16_units": has_bf16_units(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "repeats": setting.repeats,
        "study": setting.spec.model_dump(mode="json", by_alias=True),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"
