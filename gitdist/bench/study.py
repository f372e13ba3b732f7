"""Whole studies: sharing on, sharing off, and the original way, the same trials in all three.

    per repeat: on (gitdist run) -> trials' specs -> off (gitdist run, nothing shared) -> original way (plain Tune)

Every command is timed from its start to its end, Ray's start included.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from gitdist.bench.accounting import sharing_bound
from gitdist.bench.original_study import Job
from gitdist.bench.report import Figure, Measurement, Verdict
from gitdist.bench.setting import Setting
from gitdist.bench.timing import quotients, spread
from gitdist.bench.whole import WholeStudy, call, run_whole, stocked, trial_places, with_total
from gitdist.disk import read_object, write_atomic
from gitdist.spec import SharingSpec, StudySpec

Results = dict[str, list[dict[str, Any]]]
"""Rows by trial, without what says how they came about."""

_TARGETS_OFF = {8: 5.0}  # by the number of trials
_TARGETS_ORIGINAL = {8: 10.0, 16: 12.0}


@dataclass(frozen=True, kw_only=True)
class Original:
    """What the original way took and did."""

    wall_s: float
    generated: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One repeat: the same study in the three ways."""

    on: WholeStudy
    off: WholeStudy
    original: Original


def measure(setting: Setting) -> Measurement:
    """Compare the wall seconds of the whole study in the three ways; see whether on and off have the same rows.

    Raises:
        StudyError: a command failed.
    """
    total = setting.trials or setting.spec.search.total
    spec = with_total(setting.spec, total)
    repeats = [_compare(setting, spec) for _ in range(setting.repeats)]
    walls = {
        "sharing on": [each.on.wall_s for each in repeats],
        "sharing off": [each.off.wall_s for each in repeats],
        "original way": [each.original.wall_s for each in repeats],
    }
    bound, parts = _bound(repeats[-1], spec)
    verdicts = (
        _verdict("sharing off / sharing on, wall time", walls["sharing off"], walls["sharing on"], _TARGETS_OFF, total),
        _verdict(
            "original way / sharing on, wall time", walls["original way"], walls["sharing on"], _TARGETS_ORIGINAL, total
        ),
        Verdict(
            name="rows that differ between on and off",
            spread=spread(differing_rows(each.on.results, each.off.results) for each in repeats),
            rule="==",
            target=0.0,
        ),
        Verdict(
            name="peak memory of all processes, sharing on",
            spread=spread(each.on.peak_bytes / 2**30 for each in repeats),
            rule="<=",
            target=6.0,
            unit="GiB",
        ),
    )
    note = f"off / on that the arithmetic allows with {total} trials and the baseline: {bound:.2f} ({parts})"
    return Measurement(figures=_figures(walls, repeats), verdicts=verdicts, notes=(note,))


def _compare(setting: Setting, spec: StudySpec) -> Comparison:
    setting.say(f"{spec.search.total} trials, sharing on")
    with stocked(setting) as results:
        on = run_whole(results, _sharing(spec, True))
        job = _job(setting, on)
    setting.say(f"{spec.search.total} trials, sharing off")
    with stocked(setting) as results:
        off = run_whole(results, _sharing(spec, False))
    setting.say(f"{spec.search.total} trials, the original way")
    with stocked(setting) as results:
        place = results / "job.json"
        write_atomic(place, json.dumps(asdict(job)).encode())
        (started, ended), _ = call("gitdist.bench.original_study", str(place))
        done = read_object(place) or {}
    original = Original(wall_s=ended - started, generated=done["generated"], epochs=done["epochs"])
    return Comparison(on=on, off=off, original=original)


def _sharing(spec: StudySpec, wanted: bool) -> StudySpec:
    return spec.model_copy(update={"sharing": SharingSpec(stream=wanted, prefix=wanted)})


def _job(setting: Setting, study: WholeStudy) -> Job:
    """Return the study's trials as they were trained, for the original way to train."""
    described = [read_object(place / "trial.json") or {} for place in trial_places(study.paths).values()]
    return Job(
        dataset=str(setting.dataset.directory),
        artefact=str(setting.artefact),
        generator=setting.munit.model_dump(mode="json"),
        trials=[each["spec"] for each in described],
        evaluation=setting.spec.evaluation.model_dump(mode="json"),
        share=setting.spec.resources.trial.model_dump(mode="json"),
    )


def differing_rows(on: Results, off: Results) -> int:
    """Return how many epochs' rows of two studies are not equal, or are in one of them only."""
    differing = 0
    for name in on.keys() | off.keys():
        left, right = on.get(name, []), off.get(name, [])
        differing += sum(one != other for one, other in zip_longest(left, right))
    return differing


def _bound(repeat: Comparison, spec: StudySpec) -> tuple[float, str]:
    """Return the bound by the measured parts of the last repeat's study without sharing, and these in words."""
    rows = [row for rows in repeat.off.rows.values() for row in rows]
    trials = len(repeat.off.rows)
    training_s = sum(row["train_s"] - row["waiting_s"] for row in rows) / trials
    before = sum(row["train_s"] - row["waiting_s"] for row in rows if row["epoch"] <= spec.trial.switch_epoch)
    shared = before / trials / training_s
    generation = repeat.on.summary["generating_s"] / training_s
    parts = f"one training {training_s:.1f} s, shared part f {shared:.2f}, generation g {generation:.2f} trainings"
    return sharing_bound(trials, shared, generation), parts


def _verdict(
    name: str, over: Sequence[float], under: Sequence[float], targets: dict[int, float], total: int
) -> Verdict:
    return Verdict(name=name, spread=spread(quotients(over, under)), rule=">=", target=targets.get(total))


def _figures(walls: dict[str, list[float]], repeats: Sequence[Comparison]) -> tuple[Figure, ...]:
    generated = {
        "sharing on": [each.on.summary["generated_images"] for each in repeats],
        "sharing off": [each.off.summary["generated_images"] for each in repeats],
        "original way": [each.original.generated for each in repeats],
    }
    epochs = {
        "sharing on": [each.on.epochs_trained for each in repeats],
        "sharing off": [each.off.epochs_trained for each in repeats],
        "original way": [each.original.epochs for each in repeats],
    }
    figures = [Figure(name=f"whole study: {way}", spread=spread(values), unit="s") for way, values in walls.items()]
    figures += [
        Figure(name=f"images generated: {way}", spread=spread(values), unit="images")
        for way, values in generated.items()
    ]
    figures += [
        Figure(name=f"epochs trained: {way}", spread=spread(values), unit="epochs") for way, values in epochs.items()
    ]
    return tuple(figures)
