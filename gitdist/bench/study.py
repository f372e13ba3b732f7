"""Whole studies: sharing on, sharing off, and the original way, the same trials in all three.

    on (gitdist run) -> trials' specs -> original way (plain Tune)            off (gitdist run, nothing shared)

In each repeat all three are run, each time another one first. Every command is timed from its start to its end, Ray's
start included.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from statistics import median
from typing import Any

from gitdist.bench.accounting import overhead_s, work_ratio
from gitdist.bench.original_study import Job
from gitdist.bench.report import Figure, Measurement, Verdict, counted
from gitdist.bench.setting import Setting
from gitdist.bench.timing import alternate, quotients, spread
from gitdist.bench.whole import (
    KINDS,
    Row,
    WholeStudy,
    call,
    check_repeatable,
    peak_memory,
    run_whole,
    stocked,
    with_total,
)
from gitdist.disk import read_object, write_atomic
from gitdist.spec import SharingSpec, StudySpec

Results = dict[str, list[Row]]
"""Rows by trial, without what says how they came about."""

_TARGETS_OFF = {8: 5.0}  # by the number of trials
_TARGETS_ORIGINAL = {8: 10.0, 16: 12.0}


@dataclass(frozen=True, kw_only=True)
class Original:
    """What the original way took and did."""

    wall_s: float
    generated_images: int
    epochs_trained: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One repeat: the same study in the three ways."""

    on: WholeStudy
    off: WholeStudy
    original: Original


class Ways:
    """The three ways of one study; the first run with sharing comes before the original way, which takes its trials."""

    def __init__(self, setting: Setting, spec: StudySpec) -> None:
        """Take a study, its number of trials included."""
        self._setting, self._spec = setting, spec
        self._job: Job | None = None

    def on(self) -> WholeStudy:
        """Run it with sharing."""
        study = self._run("sharing on", shared=True)
        self._job = self._job or _job(self._setting, study)
        return study

    def off(self) -> WholeStudy:
        """Run it without."""
        return self._run("sharing off", shared=False)

    def original(self) -> Original:
        """Train the same trials in the original way."""
        assert self._job is not None, "sharing on comes first"
        self._say("the original way")
        with stocked(self._setting) as results:
            place = results / "job.json"
            write_atomic(place, json.dumps(asdict(self._job)).encode())
            (started, ended), _ = call("gitdist.bench.original_study", str(place))
            done = read_object(place) or {}
        return Original(wall_s=ended - started, generated_images=done["generated"], epochs_trained=done["epochs"])

    def _run(self, way: str, shared: bool) -> WholeStudy:
        self._say(way)
        sharing = SharingSpec(stream=shared, prefix=shared)
        with stocked(self._setting) as results:
            return run_whole(results, self._spec.model_copy(update={"sharing": sharing}))

    def _say(self, way: str) -> None:
        self._setting.say(f"{counted(self._spec.search.total, 'trial')}, {way}")


def measure(setting: Setting) -> Measurement:
    """Compare the wall seconds of the whole study in the three ways; see whether on and off have the same rows.

    Raises:
        SpecError: the study's trials are not the same whenever it is run.
        StudyError: a command failed.
    """
    total = setting.trials or setting.spec.search.total
    check_repeatable(setting.spec, total)
    ways = Ways(setting, with_total(setting.spec, total))
    sides = {"on": ways.on, "off": ways.off, "original": ways.original}
    found = alternate(sides, setting.repeats, warm_ups=0)
    repeats = [Comparison(**dict(zip(found, each, strict=True))) for each in zip(*found.values(), strict=True)]
    on_processor = {setting.training.device.type, setting.serving.device.type} == {"cpu"}
    return measurement(repeats, total, on_processor)


def measurement(repeats: Sequence[Comparison], total: int, on_processor: bool) -> Measurement:
    """Return what the repeats tell.

    Args:
        repeats: at least one.
        total: trials of the study, beside the baseline.
        on_processor: whether equal rows are promised: where nothing is computed on a GPU.
    """
    on, off = [each.on for each in repeats], [each.off for each in repeats]
    original = [each.original for each in repeats]
    arithmetic = median(work_ratio(each.off.work, each.on.work) for each in repeats)
    differing = sum(differing_rows(each.on.results, each.off.results) for each in repeats)
    memory = peak_memory("peak memory, sharing on", on)
    verdicts = (
        Verdict(
            name="off / on, wall time",
            spread=spread(quotients([each.wall_s for each in off], [each.wall_s for each in on])),
            rule=">=",
            target=_TARGETS_OFF.get(total),
            arithmetic=arithmetic,
        ),
        Verdict(
            name="original / on, wall time",
            spread=spread(quotients([each.wall_s for each in original], [each.wall_s for each in on])),
            rule=">=",
            target=_TARGETS_ORIGINAL.get(total),
        ),
        Verdict(
            name="rows that differ, off / on",
            spread=spread([differing]),
            rule="==",
            target=0.0 if on_processor else None,
            binding=True,
        ),
        *(Verdict(name=each.name, spread=each.spread, rule="<=", target=6.0, unit=each.unit) for each in memory),
    )
    notes = () if memory else ("peak memory is left out: it cannot be sampled here",)
    ways: dict[str, Sequence[Any]] = {"sharing on": on, "sharing off": off, "original way": original}
    figures = (*_figures(ways), *_profile("sharing on", on, total), *_profile("sharing off", off, total))
    return Measurement(figures=figures, verdicts=verdicts, notes=notes)


def differing_rows(on: Results, off: Results) -> int:
    """Return how many epochs' rows of two studies are not equal, or are in one of them only."""
    differing = 0
    for name in on.keys() | off.keys():
        left, right = on.get(name, []), off.get(name, [])
        differing += sum(one != other for one, other in zip_longest(left, right))
    return differing


def _job(setting: Setting, study: WholeStudy) -> Job:
    """Return the study's trials as they were trained, for the original way to train."""
    return Job(
        dataset=str(setting.dataset.directory),
        artefact=str(setting.artefact),
        generator=setting.munit.model_dump(mode="json"),
        trials=list(study.trials.values()),
        evaluation=setting.spec.evaluation.model_dump(mode="json"),
        share=setting.spec.resources.trial.model_dump(mode="json"),
    )


def _figures(ways: dict[str, Sequence[Any]]) -> list[Figure]:
    told = (
        ("wall time", "wall_s", "s"),
        ("generated", "generated_images", "images"),
        ("trained", "epochs_trained", "epochs"),
    )
    return [
        Figure(name=f"{name}: {way}", spread=spread(getattr(each, field) for each in runs), unit=unit)
        for name, field, unit in told
        for way, runs in ways.items()
    ]


def _profile(way: str, runs: Sequence[WholeStudy], total: int) -> list[Figure]:
    """Return where the time of a way goes: the seconds of its work in all processes, and the overhead."""
    work = [each.work for each in runs]
    figures = [
        Figure(name=f"work, {kind}: {way}", spread=spread(each[kind].seconds for each in work), unit="s, all processes")
        for kind in KINDS
    ]
    overhead = spread(overhead_s(each.intervals, each.window, total) for each in runs)
    return [*figures, Figure(name=f"overhead: {way}", spread=overhead, unit="s a trial")]
