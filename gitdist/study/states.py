"""How the trials of a study stand, the baseline among them: read from the ledger and the baseline's rows."""

from collections.abc import Mapping
from typing import Any

from gitdist.spec import StudySpec
from gitdist.study.events import Outcome, TrialStates
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.paths import BASELINE, StudyPaths, TrialId
from gitdist.study.rows import read_rows

BASELINE_FAILURE = "baseline_failure"  # what the ledger remembers of a baseline that failed: the reason
GENERATOR = "generator"  # what the ledger remembers of the trained generator: see ``generator_name``


def trial_states(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> TrialStates:
    """Return the state of every trial that was ever started."""
    states: dict[TrialId, tuple[Mapping[str, Any], Outcome | None]] = {}
    if paths.trial(BASELINE).exists():
        states[BASELINE] = ({}, _baseline_outcome(paths, spec, ledger))
    for record in ledger.trials():
        outcome = None if record.state == "running" else Outcome(record.state, reason=record.reason)
        states[TrialId("trial", record.number)] = (record.params, outcome)
    return states


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
    """Tell whether every trial of the study and the baseline have ended."""
    return not ledger.num_open() and baseline_is_settled(paths, spec, ledger)


def _baseline_outcome(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> Outcome | None:
    if baseline_is_whole(paths, spec):
        return Outcome("finished")
    failure = ledger.recall(BASELINE_FAILURE)
    return None if failure is None else Outcome("failed", reason=failure)
