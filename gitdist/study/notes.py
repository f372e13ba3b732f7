"""What status and report say of a study beside its numbers: edited files, lost rows, repeated points."""

from gitdist.spec import StudySpec
from gitdist.study.compatibility import describe_edit, has_current_splits, outdated_splits
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.records import TrialRecord
from gitdist.study.ledger.repeats import describe_links, describe_unaugmented, unaugmented_trials
from gitdist.study.ledger.trial_states import all_ended, lost_epochs


def study_notes(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> list[str]:
    """Return a line for each thing to know of a study, none where there is nothing.

    Args:
        paths: the study's files.
        spec: the study.
        ledger: its ledger.
    """
    records = ledger.trials()
    edit = describe_edit(paths, ledger.get_attr)
    lines = [edit] if edit else []
    if not has_current_splits(ledger.get_attr) and not all_ended(paths, spec, ledger):
        lines.append(str(outdated_splits(paths)))
    lines += [line for record in records if (line := _lost(paths, spec, record))]
    lines += [line for record in records if (line := _differing(paths, spec, record))]
    return lines + describe_links(records) + describe_unaugmented(unaugmented_trials(paths, records))


def _lost(paths: StudyPaths, spec: StudySpec, record: TrialRecord) -> str | None:
    lost = lost_epochs(paths, spec, record)
    if not lost:
        return None
    values = ", ".join(f"{name} {value:.4f}" for name, value in _objectives(spec, record).items())
    return f"trial {record.number} finished with {values}, but {lost} of its rows are gone; resume trains them again"


def _differing(paths: StudyPaths, spec: StudySpec, record: TrialRecord) -> str | None:
    """Say that a trial's last row does not have the objectives that the ledger has; both are written by one driver."""
    rows = read_rows(paths.rows(TrialId("trial", record.number)))
    if record.state != "finished" or not rows or lost_epochs(paths, spec, record):
        return None
    wrong = {name: value for name, value in _objectives(spec, record).items() if rows[-1].get(name) != value}
    values = ", ".join(f"{name} {rows[-1].get(name)} (ledger: {value})" for name, value in wrong.items())
    return f"rows of trial {record.number} changed since it finished: {values}" if wrong else None


def _objectives(spec: StudySpec, record: TrialRecord) -> dict[str, float]:
    return dict(zip(spec.search.objectives, record.objectives, strict=True))
