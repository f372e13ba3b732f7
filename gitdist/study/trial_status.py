"""The status of a study's trials, and how long those that are left will take; the same wherever they are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gitdist.spec import SearchSpec, StudySpec
from gitdist.study.files.attribution import SharedEpochs, epoch_seconds
from gitdist.study.files.events import Outcome
from gitdist.study.files.fencing import last_lease_epoch
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.lease import Owner
from gitdist.study.ledger.ledger import TrialRecord
from gitdist.study.study import Study

STATUS_METRICS = ("val/balanced_accuracy", "val/few_accuracy", "val/ekld")


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """One trial.

    ``state`` is that of an ``Outcome``, or waiting: open, without a worker of the current driver. ``seconds`` is the
    mean per epoch, None before the first. ``shared`` counts the epochs that another trial trained. ``repeat_of`` and
    ``replicate_of`` are as in ``TrialRecord``.
    """

    trial: str
    state: str
    epoch: int
    epochs: int
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    reason: str | None = None
    seconds: float | None = None
    shared: int = 0
    repeat_of: int | None = None
    replicate_of: int | None = None


def status_metrics(search: SearchSpec) -> tuple[str, ...]:
    """Return the metrics that a trial's status has: objectives, metrics of constraints, and ``STATUS_METRICS``."""
    constrained = (each.metric for each in search.constraints)
    return tuple(dict.fromkeys((*search.objectives, *constrained, *STATUS_METRICS)))


def read_trial_statuses(study: Study, owner: Owner | None) -> dict[TrialId, TrialStatus]:
    """Return the status of each trial that was ever started; ``owner`` is the driver that runs the study, if any."""
    records = {TrialId("trial", record.number): record for record in study.ledger.trials()}
    return {
        trial: _trial_status(study, trial, outcome, owner, records.get(trial))
        for trial, (_, outcome) in study.trial_states().items()
    }


def trial_state(paths: StudyPaths, trial: TrialId, outcome: Outcome | None, owner: Owner | None) -> str:
    """Return a trial's state for ``TrialStatus``."""
    if outcome is not None:
        return outcome.state
    if owner is None:
        return "interrupted"
    return "running" if last_lease_epoch(paths.trial(trial)) == owner.lease_epoch else "waiting"


def worked_hours(study: Study) -> float:
    """Return for how many hours drivers have run a study whose hours are limited; 0 for any other."""
    return 0.0 if study.spec.search.max_hours is None else study.ledger.worked_hours()


def study_time_left(
    spec: StudySpec, trials: Sequence[TrialStatus], num_unstarted: int, worked_hours: float
) -> float | None:
    """Estimate the seconds until all trials have ended; None before the first epoch.

    ``search.max_hours`` limits when trials start; drivers have run the study for ``worked_hours`` in all.
    """
    search, epochs, bound = spec.search, spec.trial.epochs, spec.resources.max_concurrent
    max_concurrent = 1 if bound == "auto" else bound
    left_s = time_left(trials, num_unstarted, epochs, max_concurrent)
    if left_s is None or search.max_hours is None:
        return left_s
    until_stop_s = 3600 * (search.max_hours - worked_hours)
    return min(left_s, max(until_stop_s, time_left(trials, 0, epochs, max_concurrent) or 0.0))


def time_left(trials: Sequence[TrialStatus], num_unstarted: int, epochs: int, max_concurrent: int) -> float | None:
    """Estimate the seconds until all trials have ended; None before the first epoch.

    The estimate is epochs left x mean seconds per epoch / running trials. Future trials are assumed to
    last as long as those that ended (with a pruner, less than a complete one) and to find the same shared prefix.
    """
    timed = [trial for trial in trials if trial.seconds is not None]
    done = sum(trial.epoch for trial in timed)
    if not done:
        return None
    epoch_s = sum(trial.epoch * (trial.seconds or 0.0) for trial in timed) / done
    ended = [trial.epoch for trial in trials if trial.state in ("finished", "pruned")]
    open_ = [trial for trial in trials if trial.state in ("running", "waiting", "interrupted")]
    running = sum(trial.state == "running" for trial in trials)
    mean_epochs = sum(ended) / len(ended) if ended else epochs
    shared = max((trial.shared for trial in trials), default=0)
    epochs_left = max(0, num_unstarted) * max(0.0, mean_epochs - shared)
    epochs_left += sum(max(0, trial.epochs - max(trial.epoch, shared)) for trial in open_)
    return epoch_s * epochs_left / max(1, running or max_concurrent)


def short_name(field: str) -> str:
    """Return a searched field as a heading: K and p for the threshold and the fraction."""
    return {"threshold": "K", "fraction": "p"}.get(field, field)


def format_value(value: Any) -> str:
    """Return a parameter or metric as text: four significant digits, 'all' for a missing threshold."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "all" if value is None else str(value)


def _trial_status(
    study: Study, trial: TrialId, outcome: Outcome | None, owner: Owner | None, record: TrialRecord | None
) -> TrialStatus:
    params = record.params if record else {}
    rows = read_rows(study.paths.rows(trial))
    metrics = next((row.metrics for row in reversed(rows) if row.metrics), {})
    shared = SharedEpochs.of_trial(study.paths, trial, rows)
    names = status_metrics(study.spec.search)
    return TrialStatus(
        trial=str(trial),
        state=trial_state(study.paths, trial, outcome, owner),
        epoch=rows[-1].epoch if rows else 0,
        epochs=study.num_epochs(params),
        params=dict(params),
        metrics={name: metrics[name] for name in names if name in metrics},
        reason=outcome.reason if outcome else None,
        seconds=epoch_seconds(rows) / len(rows) if rows else None,
        shared=shared.epochs if shared else 0,
        repeat_of=record.repeat_of if record else None,
        replicate_of=record.replicate_of if record else None,
    )
