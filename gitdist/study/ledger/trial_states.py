"""How the trials of a study stand, the baseline among them: read from the ledger and the rows files.

The ledger says how a search trial ended. A trial that finished but whose rows are no longer all there (its directory
was deleted, a file was damaged) is interrupted: the next driver trains the lost epochs again.
"""

from collections.abc import Mapping
from typing import Any

from gitdist.spec import StudySpec
from gitdist.study.files.events import Outcome, TrialStates
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import count_rows, read_rows
from gitdist.study.ledger.ledger import Ledger, TrialRecord
from gitdist.study.ledger.records import pareto_of

BASELINE_FAILURE = "baseline_failure"  # what the ledger remembers of a baseline that failed: the reason
GENERATOR = "generator"  # what the ledger remembers of the trained generator: see ``generator_name``


def trial_states(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> TrialStates:
    """Return the state of every trial that was ever started; the baseline is started before any other trial."""
    states: dict[TrialId, tuple[Mapping[str, Any], Outcome | None]] = {}
    records = ledger.trials()
    if paths.trial(BASELINE).exists() or (spec.baseline and records):
        states[BASELINE] = ({}, _baseline_outcome(paths, spec, ledger))
    for record in records:
        states[TrialId("trial", record.number)] = (record.params, _outcome(paths, spec, record))
    return states


def lost_epochs(paths: StudyPaths, spec: StudySpec, record: TrialRecord) -> int:
    """Return how many epochs of a finished trial have no readable row any more; 0 for a trial that has not finished."""
    if record.state != "finished":
        return 0
    return max(0, epochs_of(spec, record.params) - count_rows(paths.rows(TrialId("trial", record.number))))


def best_trials(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> list[TrialRecord]:
    """Return the trials that no other is better than, among those that finished and whose rows are all there."""
    whole = [record for record in ledger.trials() if not lost_epochs(paths, spec, record)]
    return pareto_of(whole, spec.search.directions)


def epochs_of(spec: StudySpec, params: Mapping[str, Any]) -> int:
    """Return the epochs of a whole trial, which may be searched."""
    return int(spec.changes(params).get("epochs", spec.trial.epochs))


def baseline_is_whole(paths: StudyPaths, spec: StudySpec) -> bool:
    """Tell whether the study has a baseline that was trained to its last epoch."""
    if not spec.baseline:
        return False
    rows = read_rows(paths.rows(BASELINE))
    return bool(rows) and rows[-1]["epoch"] == spec.trial.epochs


def baseline_is_settled(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> bool:
    """Tell whether the baseline has ended, in success or failure, or the study has none."""
    return not spec.baseline or _baseline_outcome(paths, spec, ledger) is not None


def all_ended(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> bool:
    """Tell whether every trial of the study and the baseline have ended, and no finished one has lost its rows."""
    lost = any(lost_epochs(paths, spec, record) for record in ledger.trials())
    return not lost and not ledger.num_open() and baseline_is_settled(paths, spec, ledger)


def _outcome(paths: StudyPaths, spec: StudySpec, record: TrialRecord) -> Outcome | None:
    if record.state == "running":
        return None
    if lost := lost_epochs(paths, spec, record):
        epochs = epochs_of(spec, record.params)
        return Outcome(
            "interrupted", reason=f"it finished, but {lost} of its {epochs} rows are gone; resume trains them again"
        )
    return Outcome(record.state, {"epoch": record.pruned_at} if record.pruned_at else None, record.reason)


def _baseline_outcome(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> Outcome | None:
    if baseline_is_whole(paths, spec):
        return Outcome("finished")
    failure = ledger.get_attr(BASELINE_FAILURE)
    return None if failure is None else Outcome("failed", reason=failure)
