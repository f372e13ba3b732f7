"""Does the search pay? Searches simulated on grids of trials whose results on test are all known (search_table.py).

A simulated search is a plain Optuna loop with the sampler and pruner that gitdist builds, in a space whose cells are
the points of the grid: K logarithmic, p linear. A trial of a point has the validation curve of one of the point's
seeds, drawn at random, so the search sees the noise of a real one; what all trials of a seed have in common is taken
out, since a study has one seed. Two trials in one cell are two trials. A grid search tries each point once and ends.

regret: how much worse on test, by the mean over all seeds, the chosen point is than the best one; the choice is the
finished trial with the best last value on validation, as in a study

    python studies/benchmarks/search.py [--repeats N] [--figures DIR]

Prints Markdown: the regret after 8, 16, 32 and 64 trials; with a pruner, after the same numbers of epochs. Epochs
before the switch do not count: all trials share them.
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import ttest_1samp
from search_table import MEASURED, METRICS, Table, read_table

from gitdist.disk import write_atomic
from gitdist.report.figures.style import INK, Picture, add_legend, new_axes, set_ticks, style_of
from gitdist.seeds import numpy_rng
from gitdist.spec import Dimension, PrunerSpec, SearchSpec
from gitdist.spec.objective import VALIDATION_METRICS, read_objectives
from gitdist.study.ledger.algorithms import build_sampler
from gitdist.study.ledger.pruning import build_pruner
from gitdist.study.ledger.space import distribution, grid_plan

CHECKPOINTS = (8, 16, 32, 64)  # trials
# Searches without and with a pruner, by the cost of a suggestion: 64 trials take 5 s of GP, 0.1 s of TPE;
# with a pruner, GP suggests up to 170 points in 10 to 17 s.
REPEATS: Mapping[str, tuple[int, int]] = {
    "random": (100, 40),
    "grid": (100, 40),
    "nsga2": (100, 40),
    "tpe": (100, 40),
    "gp": (40, 0),
}
PRUNERS = ("none", "median", "successive-halving", "hyperband")
MIN_EPOCHS = 2  # before a pruner decides, of the 6 after the switch
COMPARED_AT = 32  # trials
TABLES = ("search-digits", "search-fashion")
UNITS = {"balanced_accuracy": ("percentage points", 100), "ekld": ("millinats", 1000)}
TITLES = {"balanced_accuracy": "balanced accuracy", "ekld": "eKLD"}


@dataclass(frozen=True)
class SimulatedTrial:
    """A trial of a simulated search: its point by index, its last value (None if pruned), and its epochs."""

    point: int
    value: float | None
    epochs: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Searches:
    """Repeated searches: regrets after each trial and epochs until then, float64 and int64 per search."""

    algorithm: str
    pruner: str
    regrets: Sequence[NDArray[np.float64]]
    epochs: Sequence[NDArray[np.int64]]

    def after_trials(self, count: int) -> NDArray[np.float64]:
        """Return each search's regret after ``count`` trials, or at its end if it has fewer."""
        return np.array([regret[min(count, len(regret)) - 1] for regret in self.regrets])

    def after_epochs(self, count: int) -> NDArray[np.float64]:
        """Return each search's regret once it has trained for ``count`` epochs, by the trials that have ended."""
        return np.array(
            [
                regret[np.searchsorted(epochs, count, side="right") - 1]
                for regret, epochs in zip(self.regrets, self.epochs, strict=True)
            ]
        )


def searched_space(table: Table) -> dict[str, Dimension]:
    """Return ranges whose equal cells have the grid's numbers as their middles, and the grid's choices."""
    space = {}
    for name, values in table.values.items():
        if isinstance(values[0], str):
            space[name] = Dimension(choice=tuple(values))
        else:
            log = name == "threshold"
            low, high = math.log(values[0]) if log else values[0], math.log(values[-1]) if log else values[-1]
            half = (high - low) / (len(values) - 1) / 2
            bounds = (low - half, high + half)
            space[name] = Dimension(float=(math.exp(bounds[0]), math.exp(bounds[1])) if log else bounds, log=log)
    return space


def find_point(table: Table, params: Mapping[str, Any]) -> int:
    """Return the index of the grid's point in whose cell ``params`` lie."""
    index = 0
    for name, values in table.values.items():
        if isinstance(values[0], str):
            cell = values.index(params[name])
        else:
            scale = np.log if name == "threshold" else np.asarray
            cell = int(np.argmin(np.abs(scale(np.array(values, dtype=float)) - scale(params[name]))))
        index = index * len(values) + cell
    return index


def simulate(table: Table, metric: str, algorithm: str, pruner: str, total: int, seed: int) -> list[SimulatedTrial]:
    """Search until as many epochs are trained as ``total`` complete trials have, or a grid ends.

    Args:
        table: the results of all points.
        metric: one of ``METRICS``, whose value on validation is the objective.
        algorithm: of ``search.algorithm``.
        pruner: of ``search.pruner.kind``.
        total: of ``search.total``, from which settings of the algorithms follow.
        seed: of the search and of the draws of the trials' seeds.
    """
    is_grid = algorithm == "grid"
    space = searched_space(table)
    search = SearchSpec(
        algorithm=algorithm,
        objective=read_objectives(f"val/{metric}"),
        total=total,
        space={name: Dimension(choice=tuple(values)) for name, values in table.values.items()} if is_grid else space,
        pruner=PrunerSpec(kind=pruner, min_epochs=MIN_EPOCHS),
        seed=seed,
    )
    study = optuna.create_study(
        study_name=f"search-{seed}",  # from which Hyperband derives the brackets
        directions=search.directions,
        sampler=build_sampler(search),
        pruner=build_pruner(search.pruner, table.num_epochs),
    )
    distributions = {name: distribution(dimension) for name, dimension in search.space.items()}
    plan = iter(grid_plan(search)) if is_grid else None
    curves, rng = table.curves_of_one_study(metric), numpy_rng(seed, "search/replicates")
    trials: list[SimulatedTrial] = []
    while sum(trial.epochs for trial in trials) < total * table.num_epochs:
        if plan is not None:
            point = next(plan, None)
            if point is None:
                break
            study.enqueue_trial(point)
        trial = study.ask(distributions)
        index = find_point(table, trial.params)
        trials.append(_run_trial(study, trial, index, curves[index, rng.integers(curves.shape[1])]))
    return trials


def _run_trial(study: optuna.Study, trial: optuna.Trial, point: int, curve: NDArray[np.float64]) -> SimulatedTrial:
    for epoch, value in enumerate(curve, 1):
        trial.report(float(value), epoch)
        if MIN_EPOCHS <= epoch < len(curve) and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return SimulatedTrial(point, None, epoch)
    study.tell(trial, float(curve[-1]))
    return SimulatedTrial(point, float(curve[-1]), len(curve))


def point_regrets(table: Table, metric: str) -> NDArray[np.float64]:
    """Return how much worse each point is on test than the best one, by the mean over seeds, float64 ``[P]``."""
    costs: NDArray[np.float64] = _sign(metric) * table.test[metric].mean(axis=1)
    best: float = costs.min()
    return costs - best


def incumbent_regrets(table: Table, metric: str, trials: Sequence[SimulatedTrial]) -> NDArray[np.float64]:
    """Return the regret of the best finished trial after each trial, the earliest if several are equal.

    Before any trial has finished, it is the regret of a point drawn at random.
    """
    regrets, sign = point_regrets(table, metric), _sign(metric)
    best, found = math.inf, float(regrets.mean())
    curve = []
    for trial in trials:
        if trial.value is not None and sign * trial.value < best:
            best, found = sign * trial.value, float(regrets[trial.point])
        curve.append(found)
    return np.array(curve)


def noise_of_selection(table: Table, metric: str, repeats: int = 10_000) -> float:
    """Return the expected regret of the best of all points, each tried once with a seed drawn at random."""
    rng = numpy_rng(0, "search/selection")
    last = _sign(metric) * table.curves_of_one_study(metric)[:, :, -1]
    drawn = rng.integers(last.shape[1], size=(repeats, len(last)))
    ties = rng.uniform(0, 1e-9, drawn.shape)  # between equal values the choice is random
    chosen = (last[np.arange(len(last)), drawn] + ties).argmin(axis=1)
    return float(point_regrets(table, metric)[chosen].mean())


def regret_of_means(table: Table, metric: str) -> float:
    """Return the regret of the best point by the mean over all seeds on validation: all noise of seeds removed."""
    chosen = (_sign(metric) * table.curves[metric][:, :, -1].mean(axis=1)).argmin()
    return float(point_regrets(table, metric)[chosen])


def regret_without_search(table: Table, metric: str) -> float:
    """Return the regret of the default settings: no threshold, p 0.5 (between two cells), class-balanced."""
    points = itertools.product(*table.values.values())
    default = [
        threshold == max(table.values["threshold"]) and abs(fraction - 0.5) < 0.2 and sampler == "class-balanced"
        for threshold, fraction, sampler in points
    ]
    return float(point_regrets(table, metric)[default].mean())


def repeat(
    table: Table, metric: str, algorithm: str, pruner: str, repeats: int, pool: Executor | None = None
) -> Searches:
    """Return the regrets of searches with the seeds 0, 1, ..., simulated by the processes of a pool if there is one."""
    search = partial(simulate, table, metric, algorithm, pruner, CHECKPOINTS[-1])
    found = list(pool.map(search, range(repeats)) if pool else map(search, range(repeats)))
    return Searches(
        algorithm=algorithm,
        pruner=pruner,
        regrets=[incumbent_regrets(table, metric, trials) for trials in found],
        epochs=[np.cumsum([trial.epochs for trial in trials]) for trials in found],
    )


def markdown(table: Table, metric: str, searches: Sequence[Searches]) -> str:
    """Return mean and standard error of the regret, in percentage points or millinats, as a Markdown table."""
    unit, factor = UNITS[metric]
    budgets = [count * table.num_epochs for count in CHECKPOINTS]
    tpe = next(each for each in searches if each.algorithm == "tpe" and each.pruner == "none")
    heads = [f"{count} trials ({budget} epochs)" for count, budget in zip(CHECKPOINTS, budgets, strict=True)]
    lines = [
        f"**{table.name}, {TITLES[metric]}**: regret on test in {unit}, mean ± standard error",
        "",
        "| algorithm | pruner | searches | trials in all | " + " | ".join(heads) + f" | p at {COMPARED_AT} |",
        "|" + "---|" * (5 + len(heads)),
    ]
    for each in searches:
        regrets = [factor * each.after_epochs(budget) for budget in budgets]
        cells = [f"{np.mean(values):.2f} ± {_standard_error(values):.2f}" for values in regrets]
        trials = np.mean([len(epochs) for epochs in each.epochs])
        p_text = "" if each is tpe else f"{_p_value(each, tpe, COMPARED_AT * table.num_epochs):.3f}"
        row = [each.algorithm, each.pruner, str(len(each.regrets)), f"{trials:.0f}", *cells, p_text]
        lines.append(f"| {' | '.join(row)} |")
    noise = noise_of_selection(table, metric)
    references = {
        "one point drawn at random": point_regrets(table, metric).mean(),
        "no search (K all classes, p 0.5, class-balanced)": regret_without_search(table, metric),
        "best of all points, each tried once": noise,
        "best of all points by the mean over seeds": regret_of_means(table, metric),
    }
    lines += ["", "; ".join(f"{name}: {factor * value:.2f}" for name, value in references.items()) + ".", ""]
    needed = {each.algorithm: _trials_until(each, noise) for each in searches if each.pruner == "none"}
    lines += ["Trials until the mean regret is that of all points tried once: "]
    lines[-1] += ", ".join(f"{name} {count or 'never'}" for name, count in needed.items()) + "."
    lines += [""]
    return "\n".join(lines)


def draw(table: Table, metric: str, searches: Sequence[Searches]) -> Picture:
    """Draw mean regret and its standard error: algorithms against trials, and TPE with each pruner against epochs."""
    figure, (above, below) = new_axes(f"{table.name}: {TITLES[metric]}", height=7.5, rows=2)
    unit, factor = UNITS[metric]
    drawn: list[Any] = []
    trials = np.arange(1, CHECKPOINTS[-1] + 1)
    algorithms = [each for each in searches if each.pruner == "none"]
    for index, each in enumerate(algorithms):
        values = [factor * each.after_trials(int(count)) for count in trials]
        drawn.append(_draw_line(above, trials, values, each.algorithm, style_of(index)))
    epochs = trials * table.num_epochs
    pruned = [each for each in searches if each.algorithm == "tpe" and each.pruner != "none"]
    tpe = next(index for index, each in enumerate(algorithms) if each.algorithm == "tpe")
    _draw_line(
        below, epochs, [factor * algorithms[tpe].after_epochs(int(count)) for count in epochs], "tpe", style_of(tpe)
    )
    for index, each in enumerate(pruned, len(algorithms)):
        values = [factor * each.after_epochs(int(count)) for count in epochs]
        drawn.append(_draw_line(below, epochs, values, each.pruner, style_of(index)))
    noise = factor * noise_of_selection(table, metric)
    for axis in (above, below):
        line = axis.axhline(noise, color=INK, linewidth=1, linestyle=(0, (1, 2)), label="all points once")
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_ylabel(f"regret ({unit})")
    set_ticks(above.xaxis, [1, 2, 4, *CHECKPOINTS])
    set_ticks(below.xaxis, [count * table.num_epochs for count in (1, 2, 4, *CHECKPOINTS)])
    above.set_xlabel("trials")
    below.set_xlabel("epochs after the switch, of all trials (TPE)")
    add_legend(figure, [*drawn, line])
    return Picture(f"regret-{table.name}-{metric}", "mean regret and its standard error", figure)


def _draw_line(
    axis: Axes, x: NDArray[np.int64], values: Sequence[NDArray[np.float64]], label: str, style: Mapping[str, Any]
) -> Any:
    means, errors = np.array([each.mean() for each in values]), np.array([_standard_error(each) for each in values])
    (line,) = axis.plot(
        x, means, label=label, markersize=4, markevery=[count - 1 for count in (1, 2, 4, *CHECKPOINTS)], **style
    )
    axis.fill_between(x, means - errors, means + errors, color=style["color"], alpha=0.15, linewidth=0)
    return line


def _p_value(searches: Searches, others: Searches, epochs: int) -> float:
    """Return p of the paired t-test on searches with the same seeds, which begin with the same random trials."""
    pairs = zip(searches.after_epochs(epochs), others.after_epochs(epochs), strict=False)
    differences = np.array([one - other for one, other in pairs])
    return float(ttest_1samp(differences, 0).pvalue) if differences.std() > 0 else 1.0


def _trials_until(searches: Searches, regret: float) -> int | None:
    """Return after how many trials the mean regret is at most ``regret``; None if it never is."""
    counts = range(1, CHECKPOINTS[-1] + 1)
    return next((count for count in counts if searches.after_trials(count).mean() <= regret), None)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _sign(metric: str) -> int:
    return -1 if VALIDATION_METRICS[f"val/{metric}"] == "maximize" else 1


def main() -> None:
    """Simulate all searches on both tables, print the regrets and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, default=[MEASURED / f"{name}.json" for name in TABLES])
    parser.add_argument(
        "--repeats", type=int, help="searches per setting, at least 2; by default more of the faster algorithms"
    )
    parser.add_argument("--jobs", type=int, help="processes; by default one per core")
    parser.add_argument("--figures", type=Path, help="directory for PNG files")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for table, metric in itertools.product(map(read_table, arguments.tables), METRICS):
            searches = [
                repeat(table, metric, algorithm, pruner, arguments.repeats or numbers[pruner != "none"], pool)
                for algorithm, numbers in REPEATS.items()
                for pruner in PRUNERS
                if numbers[pruner != "none"]
            ]
            print(markdown(table, metric, searches), flush=True)
            if arguments.figures is not None:
                picture = draw(table, metric, searches)
                write_atomic(arguments.figures / f"{picture.name}.png", picture.png())


if __name__ == "__main__":
    main()
