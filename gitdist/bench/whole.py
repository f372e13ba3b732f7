"""Whole studies by the command line, each in a results directory of its own that has data set and generator already."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitdist.bench.accounting import Interval, Work
from gitdist.bench.memory import run_watched
from gitdist.bench.report import Figure
from gitdist.bench.setting import Setting
from gitdist.bench.timing import spread
from gitdist.disk import locked, read_object
from gitdist.errors import SpecError, StudyError
from gitdist.spec import StoreSpec, StudySpec, TrackingSpec
from gitdist.spec.file import dump_study
from gitdist.study.files.layout import BASELINE, StudyPaths
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.space import grid_plan
from gitdist.study.summary import read_summary

_PREFIX, _LOCK = "whole-", "lock"

PASSING = frozenset({"train_s", "waiting_s", "evaluating_s", "ended_at", "trained_by", "generated"})
"""Fields of a row that say how it came about; all others are results."""

KINDS = ("prefixes", "rests", "generation", "evaluation")
"""Kinds of work: training before the switch (what trials can share), training after it, and the other two."""

Row = dict[str, Any]


def check_repeatable(spec: StudySpec, total: int) -> None:
    """Refuse a study of which another run, or one with other resources, would not train the same trials as far.

    Args:
        spec: the study.
        total: the most trials that are run of it.

    Raises:
        SpecError: it prunes, proposes from whichever trials have ended, or has a grid of fewer points.
    """
    search = spec.search
    if search.pruner.kind != "none":
        raise SpecError(
            f"whole studies are compared trial by trial, but search.pruner '{search.pruner.kind}' ends trials by how "
            "far others happen to be; add --set search.pruner.kind=none"
        )
    if search.algorithm == "tpe" and search.lag is None:
        raise SpecError(
            "whole studies are compared trial by trial, but search.algorithm 'tpe' without search.lag proposes from "
            "whichever trials happen to have ended; add --set search.algorithm=random, or --set search.lag=2"
        )
    if search.algorithm == "grid" and (points := len(grid_plan(search))) < total:
        raise SpecError(f"{total} trials are to be run, but the grid has {points} points; add --trials {points}")


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeStudy:
    """A study that has been run: when its command started and ended (unix time), and what it left.

    ``trials`` are the trial specs, ``rows`` the rows of all trials by their names, the baseline's among them; ``tests``
    tell when trials were evaluated on test.
    """

    window: Interval
    peak_bytes: int | None
    summary: dict[str, Any]
    trials: dict[str, dict[str, Any]]
    rows: dict[str, list[Row]]
    tests: list[Interval]

    @classmethod
    def read(cls, paths: StudyPaths, window: Interval, peak_bytes: int | None = None) -> "WholeStudy":
        """Read what a study that has ended left.

        Raises:
            StudyError: it has no summary, or not all of its trials finished.
        """
        summary = read_summary(paths)
        if summary is None:
            raise StudyError(f"a study that has ended leaves {paths.summary}, but there is none; run it by itself")
        if set(summary["trials"]) != {"finished"}:
            told = ", ".join(f"{count} {state}" for state, count in summary["trials"].items())
            raise StudyError(f"all trials of a benchmark's study must finish, but it has {told}; run it by itself")
        places = _trial_places(paths)
        return cls(
            window=window,
            peak_bytes=peak_bytes,
            summary=summary,
            trials={name: (read_object(place / "trial.json") or {})["spec"] for name, place in places.items()},
            rows={name: read_rows(place / "rows.jsonl") for name, place in places.items()},
            tests=[_test_interval(place) for place in paths.study.rglob("test.json")],
        )

    @property
    def wall_s(self) -> float:
        """Seconds from the command's start to its end."""
        return self.window[1] - self.window[0]

    @property
    def generated_images(self) -> int:
        """Images that servers and trials generated."""
        return int(self.summary["generated_images"])

    @property
    def epochs_trained(self) -> int:
        """Epochs that were trained: a row that several trials share ended once."""
        return len(self._trained())

    @property
    def work(self) -> dict[str, Work]:
        """The work of each of ``KINDS``; its times are epochs, epochs, images and evaluations."""
        prefixes, rests = self._trained(before_switch=True), self._trained(before_switch=False)
        rows, summary = [*prefixes, *rests], self.summary
        generated_by_trials_s = sum(row["waiting_s"] for row in rows if row.get("generated"))
        evaluations = sum("val/balanced_accuracy" in row for row in rows) + len(self.tests)
        found = (
            (_training_s(prefixes), len(prefixes)),
            (_training_s(rests), len(rests)),
            (summary["generating_s"] + generated_by_trials_s, self.generated_images),
            (summary["evaluating_s"], evaluations),
        )
        return {kind: Work(seconds=seconds, times=times) for kind, (seconds, times) in zip(KINDS, found, strict=True)}

    @property
    def results(self) -> dict[str, list[Row]]:
        """The rows without what says how they came about."""
        return {
            name: [{field: row[field] for field in row if field not in PASSING} for row in rows]
            for name, rows in self.rows.items()
        }

    @property
    def intervals(self) -> list[Interval]:
        """When a worker trained or evaluated."""
        epochs = [
            (row["ended_at"] - row["train_s"] - row["evaluating_s"], row["ended_at"])
            for rows in self.rows.values()
            for row in rows
        ]
        return epochs + self.tests

    def _trained(self, before_switch: bool | None = None) -> list[Row]:
        """Return the rows of epochs that were trained, each once; all of them, or those on one side of the switch."""
        rows = {
            (row["epoch"], row["ended_at"]): row
            for name, some in self.rows.items()
            for row in some
            if before_switch in (None, row["epoch"] <= self.trials[name]["switch_epoch"])
        }
        return list(rows.values())


@contextmanager
def stocked(setting: Setting) -> Iterator[Path]:
    """Make a results directory with the study's data set and generator in its store, and remove it at the end.

    What a benchmark that was killed left is removed first.
    """
    place = setting.results / "bench"
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place)
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as directory,
        locked(Path(directory) / _LOCK),
    ):
        for artefact in (setting.dataset.directory, setting.artefact):
            shutil.copytree(artefact, Path(directory) / "store" / artefact.parent.name / artefact.name)
        yield Path(directory)


def remove_leftovers(place: Path) -> None:
    """Remove the results directories in ``place`` that no living benchmark of this host has."""
    for leftover in place.glob(f"{_PREFIX}*"):
        with suppress(OSError), locked(leftover / _LOCK, blocking=False) as free:
            if free:
                shutil.rmtree(leftover, ignore_errors=True)


def run_whole(results: Path, spec: StudySpec) -> WholeStudy:
    """Run a study by its command in ``results`` and return what it left.

    Raises:
        StudyError: the command failed.
    """
    # Of its own: nothing of another run is found, and nothing goes where real studies are kept.
    alone = {"store": StoreSpec(), "ledger": "sqlite", "tracking": TrackingSpec()}
    file = results / f"{spec.name}.yaml"
    file.write_text(dump_study(spec.model_copy(update=alone)))
    window, peak_bytes = call("gitdist", "run", str(file), "--results", str(results))
    return WholeStudy.read(StudyPaths(results, spec.name), window, peak_bytes)


def call(module: str, *arguments: str) -> tuple[Interval, int | None]:
    """Run a Python module, and return when it started and ended (unix time) and its peak memory (``Finished``)."""
    elsewhere = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    started = time.time()
    finished = run_watched([sys.executable, "-m", module, *arguments], environment)
    return (started, time.time()), finished.peak_bytes


def peak_memory(name: str, runs: Sequence[WholeStudy]) -> list[Figure]:
    """Return the figure of that name; none where not all runs could be sampled."""
    peaks = [each.peak_bytes / 2**30 for each in runs if each.peak_bytes]
    return [Figure(name=name, spread=spread(peaks), unit="GiB")] if len(peaks) == len(runs) else []


def with_total(spec: StudySpec, total: int) -> StudySpec:
    """Return the study with so many trials, the first of ``try_first`` among them."""
    changed = {"total": total, "try_first": spec.search.try_first[:total]}
    return spec.model_copy(update={"search": spec.search.model_copy(update=changed)})


def powers_of_two(most: int) -> Sequence[int]:
    """Return 1, 2, 4 and so on up to ``most``."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def _trial_places(paths: StudyPaths) -> dict[str, Path]:
    """Return the directories of a study's trials by name, the baseline's first."""
    trials = sorted((paths.study / "trials").iterdir())
    return {"baseline": paths.trial(BASELINE), **{place.name: place for place in trials}}


def _test_interval(place: Path) -> Interval:
    ended = place.stat().st_mtime
    return ended - (read_object(place) or {}).get("evaluating_s", 0.0), ended


def _training_s(rows: Sequence[Row]) -> float:
    return float(sum(row["train_s"] - row["waiting_s"] for row in rows))
