"""The ground truth of search.py: the results of a whole grid of trials, for several seeds of the trial.

The grid is a campaign over ``trial.seed`` whose studies evaluate all trials on test:

    gitdist run studies/benchmarks/search_digits.yaml --results DIR
    python studies/benchmarks/search_table.py search-digits --results DIR

The second command writes measured/search-digits.json.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitdist import __version__
from gitdist.disk import write_atomic
from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.study.campaign import load_campaign
from gitdist.study.files.json_files import ResultOnTest, read_json
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.results import LocalResults
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.space import grid_points, point_key

PointKey = tuple[tuple[str, str], ...]
MEASURED = Path(__file__).parent / "measured"
METRICS = ("balanced_accuracy", "ekld")


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """What each point of a grid gives, for each seed.

    Attributes:
        name: of the campaign.
        values: the values of each field; every combination of them is a point, the last field varies fastest.
        curves: by metric, the value on validation after each epoch from the switch on, float64 ``[P, S, E]``.
        test: by metric, the value on test, float64 ``[P, S]``.
    """

    name: str
    values: Mapping[str, list[Any]]
    curves: Mapping[str, NDArray[np.float64]]
    test: Mapping[str, NDArray[np.float64]]

    @property
    def num_epochs(self) -> int:
        """The epochs of a trial after the switch."""
        return int(self.curves[METRICS[0]].shape[2])

    def curves_of_one_study(self, metric: str) -> NDArray[np.float64]:
        """Return the curves without what all trials of a seed have in common, float64 ``[P, S, E]``.

        All trials of a study have one seed and share the training before the switch, so its level does not change their
        order. Here the mean over points is made the same for all seeds.
        """
        curves: NDArray[np.float64] = self.curves[metric]
        levels: NDArray[np.float64] = curves.mean(axis=0, keepdims=True) - curves.mean(axis=(0, 1), keepdims=True)
        return curves - levels


def read_table(file: Path) -> Table:
    """Return the table in a file that ``write_table`` wrote."""
    stored = json.loads(file.read_text())
    return Table(
        name=stored["campaign"],
        values=stored["values"],
        curves={metric: np.array(stored["validation"][metric]) for metric in METRICS},
        test={metric: np.array(stored["test"][metric]) for metric in METRICS},
    )


def write_table(results: Path, name: str, file: Path) -> None:
    """Write the table of a campaign whose trials have all finished; values have five decimals.

    Raises:
        GitdistError: a study of the campaign cannot be read.
        KeyError: a point of the grid has no finished trial.
    """
    campaign = load_campaign(LocalResults(results), name)
    if campaign is None:
        raise StudyError(f"{results} must have the campaign '{name}', but does not; run its study file first")
    space = campaign.members[0].spec.search.space
    points = [point_key(point) for point in grid_points(space)]
    seeds = [_read_trials(StudyPaths.at(results, member.spec.name), member.spec) for member in campaign.members]
    measured = [[trials[point] for trials in seeds] for point in points]
    table = {
        "campaign": name,
        "gitdist": __version__,
        "values": {field: list(dimension.extremes) for field, dimension in space.items()},
        "validation": {metric: [[trial.curves[metric] for trial in each] for each in measured] for metric in METRICS},
        "test": {metric: [[trial.test[metric] for trial in each] for each in measured] for metric in METRICS},
    }
    write_atomic(file, json.dumps(table).encode())


@dataclass(frozen=True, eq=False)
class _Trial:
    curves: dict[str, list[float]]
    test: dict[str, float]


def _read_trials(paths: StudyPaths, spec: StudySpec) -> dict[PointKey, _Trial]:
    """Return the finished trials of a study by their points."""
    trials = {}
    ledger = Ledger.open(paths, spec, read_only=True)
    try:
        for record in ledger.trials():
            trial = TrialId("trial", record.number)
            tested = read_json(paths.test(trial), ResultOnTest)
            if record.state == "finished" and tested is not None:
                rows = [row for row in read_rows(paths.rows(trial)) if row.epoch > spec.trial.switch_epoch]
                trials[point_key(record.params)] = _Trial(
                    {metric: [round(row.metrics[f"val/{metric}"], 5) for row in rows] for metric in METRICS},
                    {metric: round(tested["metrics"][f"test/{metric}"], 5) for metric in METRICS},
                )
    finally:
        ledger.close()
    return trials


def main() -> None:
    """Write the table of a campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", help="name of a finished campaign")
    parser.add_argument("--results", type=Path, default=Path("results"), help="its results directory")
    arguments = parser.parse_args()
    write_table(arguments.results, arguments.campaign, MEASURED / f"{arguments.campaign}.json")


if __name__ == "__main__":
    main()
