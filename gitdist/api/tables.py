"""The trials and epochs of a study as pandas DataFrames."""

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from gitdist.api.callbacks import label
from gitdist.study.files.rows import read_rows
from gitdist.study.study import Study
from gitdist.study.summary import baseline_params, last_metrics
from gitdist.study.trial_status import trial_state

if TYPE_CHECKING:
    from pandas import DataFrame


def trial_table(study: Study) -> "DataFrame":
    """Return one row per trial that was started; see ``gitdist.api.study.Study.trials``."""
    from pandas import DataFrame, Index

    paths, owner, search = study.paths, study.owner(), study.spec.search
    objectives = [f"objective/{name.removeprefix('val/')}" for name in search.objectives]
    states = study.trial_states()
    records = {record.number: record for record in study.ledger.trials()}  # after the states: none is missing
    feasible = study.feasible_trials()
    labels, lines = [], []
    for trial, (params, outcome) in states.items():
        record = None if trial.number is None else records[trial.number]
        rows = read_rows(paths.rows(trial))
        line: dict[str, Any] = {
            "state": trial_state(paths, trial, outcome, owner),
            "reason": outcome.reason if outcome else None,
            "epoch": rows[-1].epoch if rows else 0,
            **(params if record else baseline_params(study.spec)),
            **dict(zip_longest(objectives, record.objectives if record else ())),  # None until it has finished
        }
        if search.constraints:
            line["feasible"] = feasible[record.number] if record and record.state == "finished" else None
        labels.append(label(trial))
        lines.append(line | last_metrics(paths, trial))
    return DataFrame(lines, index=Index(labels, name="trial", dtype=object))


def epoch_table(study: Study) -> "DataFrame":
    """Return one row per trial and epoch; see ``gitdist.api.study.Study.rows``."""
    from pandas import DataFrame

    return DataFrame(
        [
            {"trial": label(trial), **row.to_json()}
            for trial in study.trial_states()
            for row in read_rows(study.paths.rows(trial))
        ]
    )
