"""Whole studies by the command line, each in a results directory of its own that has data set and generator already."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitdist.bench.accounting import Interval
from gitdist.bench.memory import run_watched
from gitdist.bench.setting import Setting
from gitdist.disk import read_object
from gitdist.errors import StudyError
from gitdist.spec import StoreSpec, StudySpec, TrackingSpec
from gitdist.spec.file import dump_study
from gitdist.study.paths import BASELINE, StudyPaths
from gitdist.study.rows import read_rows
from gitdist.study.summary import read_summary

PASSING = frozenset({"train_s", "waiting_s", "evaluating_s", "ended_at", "trained_by", "generated"})
"""Fields of a row that say how it came about; all others are results."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeStudy:
    """A study that has been run: when its command started and ended (unix time), and what it left.

    ``rows`` are those of all trials by their names, the baseline's among them.
    """

    paths: StudyPaths
    window: Interval
    peak_bytes: int
    summary: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]

    @property
    def wall_s(self) -> float:
        """Seconds from the command's start to its end."""
        return self.window[1] - self.window[0]

    @property
    def epochs_trained(self) -> int:
        """Epochs that were trained: a row that several trials share ended once."""
        return len({(row["epoch"], row["ended_at"]) for rows in self.rows.values() for row in rows})

    @property
    def results(self) -> dict[str, list[dict[str, Any]]]:
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
        return epochs + [self._test_interval(place) for place in self.paths.study.rglob("test.json")]

    def _test_interval(self, place: Path) -> Interval:
        ended = place.stat().st_mtime
        return ended - (read_object(place) or {}).get("evaluating_s", 0.0), ended


@contextmanager
def stocked(setting: Setting) -> Iterator[Path]:
    """Make a results directory with the study's data set and generator in its store, and remove it at the end."""
    place = setting.results / "bench"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="whole-", dir=place) as directory:
        for artefact in (setting.dataset.directory, setting.artefact):
            shutil.copytree(artefact, Path(directory) / "store" / artefact.parent.name / artefact.name)
        yield Path(directory)


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
    paths = StudyPaths(results, spec.name)
    summary = read_summary(paths)
    if summary is None:
        raise StudyError(f"a study that has ended leaves {paths.summary}, but there is none; run it by itself")
    return WholeStudy(paths=paths, window=window, peak_bytes=peak_bytes, summary=summary, rows=_all_rows(paths))


def call(module: str, *arguments: str) -> tuple[Interval, int]:
    """Run a Python module, and return when it started and ended (unix time) and the most memory it held, in bytes."""
    elsewhere = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    started = time.time()
    finished = run_watched([sys.executable, "-m", module, *arguments], environment)
    return (started, time.time()), finished.peak_bytes


def trial_places(paths: StudyPaths) -> dict[str, Path]:
    """Return the directories of a study's trials by name, the baseline's first."""
    trials = sorted((paths.study / "trials").iterdir())
    return {"baseline": paths.trial(BASELINE), **{place.name: place for place in trials}}


def with_total(spec: StudySpec, total: int) -> StudySpec:
    """Return the study with so many trials."""
    return spec.model_copy(update={"search": spec.search.model_copy(update={"total": total})})


def powers_of_two(most: int) -> Sequence[int]:
    """Return 1, 2, 4 and so on up to ``most``."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def _all_rows(paths: StudyPaths) -> dict[str, list[dict[str, Any]]]:
    return {name: read_rows(place / "rows.jsonl") for name, place in trial_places(paths).items()}
