"""How a study stands, for anyone who asks: read from ledger, lease and rows files, of which it changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gitdist.spec import StudySpec
from gitdist.study.compatibility import has_current_splits
from gitdist.study.files.attribution import Shared, seconds_of
from gitdist.study.files.events import Outcome, Row
from gitdist.study.files.fencing import last_term
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.gap import Gap, find_gaps
from gitdist.study.ledger.lease import Owner, owners
from gitdist.study.ledger.ledger import Ledger, TrialRecord
from gitdist.study.ledger.trial_states import all_ended, baseline_is_whole, best_trials, epochs_of, trial_states
from gitdist.study.monitoring.latest import newest_line
from gitdist.study.notes import study_notes
from gitdist.study.summary import last_metrics, read_summary

SHOWN = ("val/balanced_accuracy", "val/few_accuracy", "val/ekld")


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """One trial.

    ``state`` is that of an ``Outcome``, or waiting: open, without a worker of the present driver. ``seconds`` are those
    of an epoch, None before the first. Of its epochs ``shared`` are another trial's, which it took over. ``repeat_of``
    and ``replicate_of`` are those of the ledger's record.
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


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """A study: ``state`` is running, interrupted, finished, or failed where all trials have ended and none finished.

    ``gaps`` are those of the best trial so far to the baseline. ``time_left_s`` is an estimate, None without any.
    ``stream`` is the newest line of figures of a running study, see ``seen``; None without any. ``resumable`` is false
    if a version of gitdist with other splits began it. ``notes`` are those of ``study_notes``.
    """

    study: str
    state: str
    total: int
    counts: Mapping[str, int]
    objectives: Sequence[str]
    best: Sequence[Mapping[str, Any]] = ()
    time_left_s: float | None = None
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


def read_status(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> StudyStatus:
    """Return how the study stands now.

    Args:
        paths: the study's files.
        spec: the study.
        ledger: its ledger.
    """
    owner = present_owner(ledger)
    records = {TrialId("trial", record.number): record for record in ledger.trials()}
    trials = [
        _trial(paths, spec, trial, state_now(paths, trial, outcome, owner), outcome, records.get(trial))
        for trial, (_, outcome) in trial_states(paths, spec, ledger).items()
    ]
    searched = [trial for trial in trials if trial.trial != "baseline"]
    states = [trial.state for trial in searched]
    return StudyStatus(
        study=spec.name,
        state="running" if owner else _state_at_rest(paths, spec, ledger),
        total=ledger.total,
        counts={name: states.count(name) for name in dict.fromkeys(states)},
        objectives=spec.search.objectives,
        best=[
            {"trial": record.number, "params": dict(record.params), "objectives": list(record.objectives)}
            for record in best_trials(paths, spec, ledger)
        ],
        gaps=_gaps(paths, spec, ledger),
        time_left_s=time_left(trials, ledger.total - len(searched), spec.trial.epochs, _at_once(spec)),
        owner=owner,
        stream=newest_line(paths.watch) if owner else None,
        resumable=has_current_splits(ledger.get_attr),
        trials=trials,
        notes=study_notes(paths, spec, ledger),
    )


def present_owner(ledger: Ledger) -> Owner | None:
    """Return the driver that owns the study now, as far as can be seen."""
    alive = [owner for owner in owners(ledger.storage, ledger.name) if owner.state in ("live", "unknown")]
    return alive[0] if alive else None


def time_left(trials: Sequence[TrialStatus], num_to_come: int, epochs: int, max_concurrent: int) -> float | None:
    """Estimate the seconds until all trials have ended; None before the first epoch of any.

    Epochs still to do, at the mean seconds of the epochs done, shared by as many trials as run now. A trial to come is
    taken to last as long as those that ended: with a pruner, less than a whole one. What some trial took over from
    another, all of them are taken to find as well.

    Args:
        trials: those that exist, the baseline among them.
        num_to_come: how many do not exist yet.
        epochs: of a whole trial.
        max_concurrent: trials at once where none runs.
    """
    timed = [trial for trial in trials if trial.seconds is not None]
    done = sum(trial.epoch for trial in timed)
    if not done:
        return None
    epoch_s = sum(trial.epoch * (trial.seconds or 0.0) for trial in timed) / done
    ended = [trial.epoch for trial in trials if trial.state in ("finished", "pruned")]
    open_ = [trial for trial in trials if trial.state in ("running", "waiting", "interrupted")]
    running = sum(trial.state == "running" for trial in trials)
    usual = sum(ended) / len(ended) if ended else epochs
    shared = max((trial.shared for trial in trials), default=0)
    to_do = max(0, num_to_come) * max(0.0, usual - shared)
    to_do += sum(max(0, trial.epochs - max(trial.epoch, shared)) for trial in open_)
    return epoch_s * to_do / max(1, running or max_concurrent)


def _gaps(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> list[Gap]:
    best = ledger.best()
    if best is None:
        return []
    baseline = last_metrics(paths, BASELINE) if baseline_is_whole(paths, spec) else None
    return find_gaps(spec.search.objectives, last_metrics(paths, TrialId("trial", best.number)), baseline)


def _state_at_rest(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> str:
    if not all_ended(paths, spec, ledger):
        return "interrupted"
    if spec.search.total and ledger.best() is None:
        return "failed"
    return "interrupted" if read_summary(paths) is None else "finished"


def state_now(paths: StudyPaths, trial: TrialId, outcome: Outcome | None, owner: Owner | None) -> str:
    """Return a trial's state as ``TrialStatus`` has it.

    Args:
        paths: the study's files.
        trial: which trial.
        outcome: how it ended, as ``trial_states`` has it.
        owner: the study's present driver.
    """
    if outcome is not None:
        return outcome.state
    if owner is None:
        return "interrupted"
    return "running" if last_term(paths.trial(trial)) == owner.lease_epoch else "waiting"


def _trial(
    paths: StudyPaths,
    spec: StudySpec,
    trial: TrialId,
    state: str,
    outcome: Outcome | None,
    record: TrialRecord | None,
) -> TrialStatus:
    params = record.params if record else {}
    rows = read_rows(paths.rows(trial))
    evaluated: Row = next((row for row in reversed(rows) if SHOWN[0] in row), {})
    shared = Shared.of_trial(paths, trial, rows)
    return TrialStatus(
        trial=str(trial),
        state=state,
        epoch=rows[-1]["epoch"] if rows else 0,
        epochs=epochs_of(spec, params),
        params=dict(params),
        metrics={name: evaluated[name] for name in SHOWN if name in evaluated},
        reason=outcome.reason if outcome else None,
        seconds=seconds_of(rows) / len(rows) if rows else None,
        shared=shared.epochs if shared else 0,
        repeat_of=record.repeat_of if record else None,
        replicate_of=record.replicate_of if record else None,
    )


def _at_once(spec: StudySpec) -> int:
    bound = spec.resources.max_concurrent
    return 1 if bound == "auto" else bound
