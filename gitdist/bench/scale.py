"""From 1 to 16 trials with everything shared: images generated, epochs trained, wall time and framework overhead.

Framework overhead = (wall time of the command - the time in which any worker trained or evaluated) / trials. Waiting
for the stream is part of training; the command's own start and end, Ray's start, the search and MLflow are overhead.
"""

from gitdist.bench.accounting import overhead_s
from gitdist.bench.report import Figure, Measurement, Verdict
from gitdist.bench.setting import Setting
from gitdist.bench.timing import quotients, spread
from gitdist.bench.whole import WholeStudy, powers_of_two, run_whole, stocked, with_total

MOST_TRIALS = 16
_JUDGED = 8  # trials from which on the overhead has a target: below, Ray's start is most of it


def measure(setting: Setting) -> Measurement:
    """Run the study with 1, 2, 4, ... trials and report how each figure grows.

    Raises:
        StudyError: a command failed.
    """
    totals = powers_of_two(setting.trials or MOST_TRIALS)
    studies: dict[int, list[WholeStudy]] = {total: [] for total in totals}
    for _ in range(setting.repeats):
        for total, runs in studies.items():
            setting.say(f"{total} trials")
            with stocked(setting) as results:
                runs.append(run_whole(results, with_total(setting.spec, total)))
    figures = [figure for total in totals for figure in _figures(total, studies[total])]
    verdicts = [_overhead(total, studies[total]) for total in totals]
    first, last = studies[totals[0]], studies[totals[-1]]
    growth = quotients(*([each.summary["generated_images"] for each in runs] for runs in (last, first)))
    name = f"generated images with {totals[-1]} trials / with {totals[0]}"
    verdicts.append(Verdict(name=name, spread=spread(growth), rule="<=", target=1.0))
    return Measurement(figures=tuple(figures), verdicts=tuple(verdicts))


def _figures(total: int, runs: list[WholeStudy]) -> list[Figure]:
    figures = {
        ("wall time", "s"): [each.wall_s for each in runs],
        ("images generated", "images"): [float(each.summary["generated_images"]) for each in runs],
        ("epochs trained", "epochs"): [float(each.epochs_trained) for each in runs],
        ("peak memory", "GiB"): [each.peak_bytes / 2**30 for each in runs],
    }
    return [
        Figure(name=f"{name}, {total} trials", spread=spread(found), unit=unit)
        for (name, unit), found in figures.items()
    ]


def _overhead(total: int, runs: list[WholeStudy]) -> Verdict:
    found = spread(overhead_s(each.intervals, each.window, total) for each in runs)
    target = 2.0 if total >= _JUDGED else None
    return Verdict(
        name=f"framework overhead per trial, {total} trials", spread=found, rule="<=", target=target, unit="s"
    )
