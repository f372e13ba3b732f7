"""Reads the status of a study, running or not, from ledger, lease and rows files; changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gitdist.spec import StudySpec
from gitdist.study.compatibility import (
    describe_edit,
    has_current_splits,
    outdated_splits_error,
    unrecorded_trials,
)
from gitdist.study.files.damage import find_damage
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.gap import Gap, find_gaps
from gitdist.study.ledger.lease import Owner
from gitdist.study.ledger.ledger import Stop, TrialRecord
from gitdist.study.ledger.repeats import describe_links, describe_unaugmented, unaugmented_trials
from gitdist.study.monitoring.latest import newest_line
from gitdist.study.study import Study
from gitdist.study.summary import is_finished, last_metrics, lost_tests
from gitdist.study.trial_status import TrialStatus, read_trial_statuses, study_time_left, worked_hours


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """A study: ``state`` is running, interrupted, finished, or failed (all trials have ended and none finished).

    ``gaps`` compare the best trial so far with the baseline. ``time_left_s`` is an estimate, None if unknown; ``stop``
    is the rule that has ended the search early, and with ``may_stop`` one may do so before that time.
    ``stream`` is the newest line of the monitor log of a running study, or None. ``resumable`` is false if a
    version of gitdist with other splits started the study. ``notes`` are those of ``study_notes``.
    """

    study: str
    state: str
    total: int
    counts: Mapping[str, int]
    objectives: Sequence[str]
    best: Sequence[Mapping[str, Any]] = ()
    time_left_s: float | None = None
    may_stop: bool = False
    stop: Stop | None = None
    gaps: Sequence[Gap] = ()
    owner: Owner | None = None
    stream: Mapping[str, Any] | None = None
    resumable: bool = True
    trials: Sequence[TrialStatus] = field(default_factory=tuple)
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        values = asdict(self)
        if self.owner is not None:
            values["owner"] = self.owner.as_json()
        return values


def read_status(study: Study) -> StudyStatus:
    """Return the status of a study now."""
    spec, ledger, owner = study.spec, study.ledger, study.owner()
    trials = list(read_trial_statuses(study, owner).values())
    searched = [trial for trial in trials if trial.trial != "baseline"]
    states = [trial.state for trial in searched]
    return StudyStatus(
        study=spec.name,
        state="running" if owner else _state_without_driver(study),
        total=ledger.total,
        counts={name: states.count(name) for name in dict.fromkeys(states)},
        objectives=spec.search.objectives,
        best=[
            {
                "trial": record.number,
                "params": dict(record.params),
                "objectives": list(record.objectives),
                **({"replicates": list(record.replicates)} if record.replicates else {}),
            }
            for record in study.best_trials()
        ],
        gaps=_gaps(study),
        time_left_s=study_time_left(spec, trials, ledger.total - len(searched), worked_hours(study)),
        may_stop=spec.search.may_stop and ledger.total > len(searched),
        stop=ledger.stop(),
        owner=owner,
        stream=newest_line(study.paths.monitor_log) if owner else None,
        resumable=has_current_splits(ledger),
        trials=trials,
        notes=study_notes(study),
    )


def study_notes(study: Study) -> list[str]:
    """Return notes, one line each.

    They name edits, damage, lost rows, the stop rule that ended the search, constraints that no trial meets, repeated
    points and trials that augment no class.
    """
    records = study.ledger.trials()
    lines = file_notes(study) + search_notes(study)
    return lines + describe_links(records) + describe_unaugmented(unaugmented_trials(study.paths, records))


def search_notes(study: Study) -> list[str]:
    """Return notes on the search, one line each: the stop rule that ended it, and constraints that no trial meets."""
    search, stop = study.spec.search, study.ledger.stop()
    lines = []
    if stop is not None:
        value = getattr(search, stop.rule)
        lines.append(f"search.{stop.rule} {value:g} has ended the search: {stop.reason}")
    if study.lacks_feasible_trial():
        lines.append(f"no trial meets the constraints {', '.join(map(str, search.constraints))}, so none is the best")
    return lines


def file_notes(study: Study) -> list[str]:
    """Return notes on the study's files, one line each: edits, other splits, damage, and lost or changed rows."""
    records = study.ledger.trials()
    edit = describe_edit(study.paths, study.ledger)
    lines = [edit] if edit else []
    if not has_current_splits(study.ledger) and not study.all_ended():
        lines.append(str(outdated_splits_error(study.paths)))
    lines += _damage_notes(study)
    lines += [line for record in records if (line := _lost_rows_note(study, record))]
    return lines + [line for record in records if (line := _changed_rows_note(study, record))]


def _damage_notes(study: Study) -> list[str]:
    """Return a note for each JSON file that is damaged, each lost result on test and each trial without a record."""
    paths = study.paths
    notes = [str(error) for error in find_damage(paths)]
    missing = [paths.test(trial) for trial in lost_tests(study) if not paths.test(trial).exists()]
    notes += [f"{file} is missing; resume the study, which writes it again" for file in missing]
    lost = unrecorded_trials(paths, study.ledger)
    return notes + [f"{paths.trial(trial)} is of a trial that the ledger lacks; restore the ledger" for trial in lost]


def _lost_rows_note(study: Study, record: TrialRecord) -> str | None:
    lost = study.num_lost_epochs(record)
    if not lost:
        return None
    values = ", ".join(f"{name} {value:.4f}" for name, value in _objectives(study.spec, record).items())
    return f"trial {record.number} finished with {values}, but {lost} of its rows are lost; resume retrains them"


def _changed_rows_note(study: Study, record: TrialRecord) -> str | None:
    """Return a note if a trial's last row differs from the ledger's objectives, since one driver writes both."""
    rows = read_rows(study.paths.rows(TrialId("trial", record.number)))
    if record.state != "finished" or not rows or study.num_lost_epochs(record):
        return None
    metrics = rows[-1].metrics
    wrong = {name: value for name, value in _objectives(study.spec, record).items() if metrics.get(name) != value}
    values = ", ".join(f"{name} {metrics.get(name)} (ledger: {value})" for name, value in wrong.items())
    return f"rows of trial {record.number} changed since it finished: {values}" if wrong else None


def _objectives(spec: StudySpec, record: TrialRecord) -> dict[str, float]:
    return dict(zip(spec.search.objectives, record.objectives, strict=True))


def _gaps(study: Study) -> list[Gap]:
    best = study.ledger.best()
    if best is None:
        return []
    baseline = last_metrics(study.paths, BASELINE) if study.is_baseline_trained() else None
    return find_gaps(
        study.spec.search.direction_by_objective, last_metrics(study.paths, TrialId("trial", best.number)), baseline
    )


def _state_without_driver(study: Study) -> str:
    if not study.all_ended():
        return "interrupted"
    if study.spec.search.total and not any(record.state == "finished" for record in study.ledger.trials()):
        return "failed"
    return "finished" if is_finished(study) else "interrupted"
