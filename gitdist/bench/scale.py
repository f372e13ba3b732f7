"""From 1 to 16 trials with everything shared: images generated, epochs trained, wall time and framework overhead.

Framework overhead = (wall time of the command - the time in which any worker trained or evaluated) / trials. Waiting
for the stream is part of training; the command's own start and end, Ray's start, the search and MLflow are overhead.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from gitdist.bench.accounting import overhead_s
from gitdist.bench.report import Figure, Measurement, Verdict, counted
from gitdist.bench.setting import Setting
from gitdist.bench.timing import alternate, quotients, spread
from gitdist.bench.whole import (
    WholeStudy,
    check_repeatable,
    peak_memory,
    powers_of_two,
    run_whole,
    stocked,
    with_total,
)

MOST_TRIALS = 16
_JUDGED = 8  # trials from which on the overhead has a target: below, Ray's start is most of it


def measure(setting: Setting) -> Measurement:
    """Run the study with 1, 2, 4, ... trials and report how each figure grows.

    Raises:
        SpecError: the study's trials are not the same whenever it is run.
        StudyError: a command failed.
    """
    totals = powers_of_two(setting.trials or MOST_TRIALS)
    check_repeatable(setting.spec, totals[-1])
    sides: dict[int, Callable[[], WholeStudy]] = {total: partial(_run, setting, total) for total in totals}
    return measurement(alternate(sides, setting.repeats, warm_ups=0))


def measurement(studies: Mapping[int, Sequence[WholeStudy]]) -> Measurement:
    """Return what studies tell, by their numbers of trials in rising order."""
    figures = [figure for total, runs in studies.items() for figure in _figures(total, runs)]
    verdicts = [_overhead(total, runs) for total, runs in studies.items()]
    totals = list(studies)
    first, last = ([each.generated_images for each in studies[total]] for total in (totals[0], totals[-1]))
    if not all(first):
        note = f"no images were generated with {counted(totals[0], 'trial')}: growth is left out"
        return Measurement(figures=tuple(figures), verdicts=tuple(verdicts), notes=(note,))
    name = f"generated with {counted(totals[-1], 'trial')} / with {totals[0]}"
    verdicts.append(Verdict(name=name, spread=spread(quotients(last, first)), rule="<=", target=1.0))
    return Measurement(figures=tuple(figures), verdicts=tuple(verdicts))


def _run(setting: Setting, total: int) -> WholeStudy:
    setting.say(counted(total, "trial"))
    with stocked(setting) as results:
        return run_whole(results, with_total(setting.spec, total))


def _figures(total: int, runs: Sequence[WholeStudy]) -> list[Figure]:
    figures: dict[tuple[str, str], list[float]] = {
        ("wall time", "s"): [each.wall_s for each in runs],
        ("generated", "images"): [each.generated_images for each in runs],
        ("trained", "epochs"): [each.epochs_trained for each in runs],
    }
    trials = counted(total, "trial")
    told = [
        Figure(name=f"{name}, {trials}", spread=spread(found), unit=unit) for (name, unit), found in figures.items()
    ]
    return told + peak_memory(f"peak memory, {trials}", runs)


def _overhead(total: int, runs: Sequence[WholeStudy]) -> Verdict:
    found = spread(overhead_s(each.intervals, each.window, total) for each in runs)
    target = 2.0 if total >= _JUDGED else None
    name = f"overhead a trial, {counted(total, 'trial')}"
    return Verdict(name=name, spread=found, rule="<=", target=target, unit="s")
