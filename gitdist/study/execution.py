"""Ray Tune executes, the ledger decides, observers watch.

    ledger --next_trial--> LedgerSearcher.suggest --> Tune starts a worker (an actor, reused from trial to trial)
    worker --tune.report({"row": ...}) once an epoch--> driver:
        LedgerSearcher.on_trial_result    notes the objective in the ledger
        ObserverCallback.on_trial_result  tells the display and MLflow
    worker ends --> LedgerSearcher.on_trial_complete ends the trial in the ledger, ObserverCallback tells the observers

Everything on the driver runs in Tune's one loop, so the ledger and the observers see one call at a time. Nothing of
Tune's own state outlives the run: it lies in a directory that is removed.
"""

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from gitdist.spec import Share
from gitdist.study.events import Observer, Outcome
from gitdist.study.ledger import Ledger
from gitdist.study.paths import BASELINE, TrialId

_DIED = "the worker process died"  # it reports whatever it can catch itself


def run_trials(
    train: Callable[[dict[str, Any]], None],
    ledger: Ledger,
    observer: Observer,
    share: Share,
    *,
    objective: str,
    with_baseline: bool,
    max_concurrent: int,
) -> None:
    """Run the baseline (if asked) and every unfinished search trial; return when all have ended.

    Raises KeyboardInterrupt where the user interrupted it; what ran goes on from its checkpoints in the next run.

    Args:
        train: the trainable; its config has ``role``, ``number`` and ``params``; it reports ``{"row": ...}`` once an
            epoch and ``{"failed": reason}`` where it ends without a result.
        ledger: hands out search trials and is told how they end.
        observer: told of every event.
        share: CPUs and GPUs of one trial.
        objective: the row's field that the ledger records.
        with_baseline: whether the baseline is still to be trained.
        max_concurrent: trials at once.
    """
    samples = ledger.num_open() + with_baseline
    if samples == 0:
        return
    with tempfile.TemporaryDirectory(prefix="gitdist-tune-") as directory:
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": share.cpu, "gpu": share.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(ledger, objective, with_baseline),
                num_samples=samples,
                max_concurrent_trials=max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=directory, verbose=0, callbacks=[ObserverCallback(observer)]
            ),
        )
        tuner.fit()
    if ledger.num_open():
        raise KeyboardInterrupt  # Tune takes the user's interrupt for itself and returns as if all had ended


class _Unsaved:
    """Tune writes its tuner to disk for a restore that never happens here; this part of it is left out."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(_Unsaved, Searcher):
    """Tune's view of the ledger: the baseline first, then what the ledger hands out."""

    def __init__(self, ledger: Ledger, objective: str, with_baseline: bool) -> None:
        """Hand out trials of ``ledger`` and note the row field ``objective`` in it."""
        super().__init__()
        self._ledger = ledger
        self._objective = objective
        self._with_baseline = with_baseline
        self._trials: dict[str, TrialId] = {}
        self._last: dict[str, Mapping[str, Any]] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial, or FINISHED."""
        if self._with_baseline:
            self._with_baseline = False
            self._trials[trial_id] = BASELINE
            return {"role": "baseline", "number": None, "params": {}}
        record = self._ledger.next_trial()
        if record is None:
            return str(Searcher.FINISHED)
        self._trials[trial_id] = TrialId("trial", record.number)
        return {"role": "trial", "number": record.number, "params": dict(record.params)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note the objective of the epoch that ended; Tune hands the report over flat, as ``row/epoch`` and so on."""
        number = self._trials[trial_id].number
        value = result.get(f"row/{self._objective}")
        self._last[trial_id] = {"failed": result.get("failed"), "value": value}
        if number is not None and value is not None:
            self._ledger.record_epoch(number, result["row/epoch"], value)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """End the trial in the ledger."""
        number = self._trials.pop(trial_id).number
        last = self._last.pop(trial_id, {})
        if number is None:
            return
        if error:
            self._ledger.fail(number, _DIED)
        elif last.get("failed"):
            self._ledger.fail(number, last["failed"])
        else:
            self._ledger.finish(number, last.get("value"))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only record."""


class ObserverCallback(_Unsaved, tune.Callback):
    """Passes Tune's events on to an observer, in the study's own terms."""

    def __init__(self, observer: Observer) -> None:
        """Tell ``observer``."""
        self._observer = observer
        self._last: dict[str, Mapping[str, Any]] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell of the start."""
        self._observer.trial_started(_identify(trial), trial.config["params"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Tell of an epoch."""
        self._last[trial.trial_id] = {**self._last.get(trial.trial_id, {}), **_own_part(result)}
        if "row" in result:
            self._observer.epoch_ended(_identify(trial), result["row"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell of a regular end, which may be a failure that the trial itself found."""
        last = self._last.pop(trial.trial_id, {})
        state: Any = "failed" if "failed" in last else "finished"
        self._observer.trial_ended(_identify(trial), Outcome(state, last.get("row"), last.get("failed")))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell of a worker that died."""
        last = self._last.pop(trial.trial_id, {})
        self._observer.trial_ended(_identify(trial), Outcome("failed", last.get("row"), _DIED))


def _identify(trial: Trial) -> TrialId:
    return TrialId(trial.config["role"], trial.config["number"])


def _own_part(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("row", "failed") if key in result}
