"""The ledger: Optuna's storage, the only record of which search trials exist and how they ended.

    next_trial --> a trial enters the storage RUNNING, in one write, with all its parameters
    note_epoch --> value of the epoch, then the pruner's decision with its rungs, then PRUNED if it says so
    finish, fail --> COMPLETE or FAIL

Every step is one write or a row of writes of which each says what the next will be. So a driver killed between any two
leaves a ledger from which the next one goes on: RUNNING trials are handed out again, under their numbers and before any
new one, and the last epoch noted anew ends in the same decision.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import StudyError
from gitdist.spec import SearchSpec, StudySpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.proposal import REPEAT_OF, REPLICATE_OF, RETRY_OF, num_proposals, propose
from gitdist.study.ledger.pruning import DECISION, judge
from gitdist.study.ledger.records import REASON, TrialRecord, best_of, pareto_of, read_record
from gitdist.study.ledger.storage import close_storage, describe_place, open_storage, read_storage, storage_errors

__all__ = ["Ledger", "Link", "TrialRecord"]

Link = Callable[[Mapping[str, Any], Sequence[TrialRecord]], Mapping[str, int]]
"""``link(params, records)`` returns a new trial's ``repeat_of`` or ``replicate_of`` (as in ``TrialRecord``), or {}."""

_LINKS = {"repeat_of": REPEAT_OF, "replicate_of": REPLICATE_OF}


class Ledger:
    """One study's trials in an Optuna storage. Owned by the driver; not for several threads at once."""

    def __init__(
        self,
        storage: BaseStorage,
        study_name: str,
        search: SearchSpec,
        switch_epoch: int = 0,
        epochs: int | None = None,
        *,
        place: str = "of the study",
        create: bool = True,
    ) -> None:
        """Open the study in ``storage``, or create it there.

        Args:
            storage: where the trials are kept.
            study_name: the study's name there.
            search: what is searched.
            switch_epoch: epochs of a trial that are not noted, since all trials are equal until then.
            epochs: epochs of a whole trial, after which it is not pruned any more; a pruner needs it.
            place: where the storage is, for messages.
            create: whether a study that is not there is created; else nothing is written.

        Raises:
            StudyError: the storage cannot be read, has no study of this name, or one with other objectives.
        """
        self.storage, self.name = storage, study_name
        self._search, self._switch, self._epochs, self._place = search, switch_epoch, epochs, place
        self._handed_out: set[int] = set()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with storage_errors(place):
            if create:
                optuna.create_study(
                    storage=storage, study_name=study_name, directions=search.directions, load_if_exists=True
                )
            self._study = self._load(search)

    def _load(self, search: SearchSpec) -> optuna.Study:
        try:
            study = optuna.load_study(
                storage=self.storage,
                study_name=self.name,
                sampler=optuna.samplers.RandomSampler(),  # never asked: proposals are made in memory
                pruner=optuna.pruners.NopPruner(),
            )
        except KeyError:
            raise StudyError(f"the ledger {self._place} has no study '{self.name}'; `gitdist run` begins it") from None
        directions = tuple(direction.name.lower() for direction in study.directions)
        if directions != search.directions:
            raise StudyError(
                f"the ledger {self._place} has a study '{self.name}' with objectives to {', '.join(directions)}, but "
                f"search.objective is {', '.join(search.objectives)}; give the study another name"
            )
        return study

    @classmethod
    def open(cls, paths: StudyPaths, spec: StudySpec, *, read_only: bool = False) -> Self:
        """Open the ledger of a study, storage and all.

        Args:
            paths: the study's files.
            spec: the study.
            read_only: whether the ledger is there and is to stay as it is; then its files need not be writable.

        Raises:
            StudyError: the storage cannot be opened.
        """
        storage = (read_storage if read_only else open_storage)(spec.ledger, paths)
        place, trial = describe_place(spec.ledger, paths), spec.trial
        try:
            return cls(
                storage, spec.name, spec.search, trial.switch_epoch, trial.epochs, place=place, create=not read_only
            )
        except BaseException:
            close_storage(storage)
            raise

    @staticmethod
    def exists(paths: StudyPaths, spec: StudySpec) -> bool:
        """Whether a study has begun its ledger; one in a database is taken to be there."""
        local = {"sqlite": paths.ledger, "journal": paths.journal}.get(spec.ledger)
        return local is None or local.exists()

    def close(self) -> None:
        """Release the storage's connections."""
        close_storage(self.storage)

    @property
    def total(self) -> int:
        """The number of search trials the study ends with; retries of failed ones count on top."""
        return self._total(self._trials())

    def recall(self, key: str) -> Any:
        """Return what was remembered of the study under ``key``; None if nothing was."""
        with storage_errors(self._place):
            return self._study.user_attrs.get(f"gitdist.{key}")

    def remember(self, key: str, value: Any) -> None:
        """Keep a fact about the study (anything that JSON can hold) under ``key``, instead of an earlier one."""
        with storage_errors(self._place):
            self._study.set_user_attr(f"gitdist.{key}", value)

    def trials(self) -> list[TrialRecord]:
        """Return all search trials by number."""
        return [read_record(trial, self._switch) for trial in self._trials()]

    def num_open(self) -> int:
        """Return how many trials have not ended: still to be handed out, or running."""
        trials = self._trials()
        return max(0, self._total(trials) - len(trials)) + sum(not trial.state.is_finished() for trial in trials)

    def best(self) -> TrialRecord | None:
        """Return the finished trial with the best first objective; the earlier one of equals."""
        return best_of(self.trials(), self._search.directions)

    def pareto(self) -> list[TrialRecord]:
        """Return the finished trials by number that no other is better than; for one objective the best alone."""
        return pareto_of(self.trials(), self._search.directions)

    def next_trial(self, link: Link | None = None) -> TrialRecord | None:
        """Hand out a trial: one that nobody works on any more, else a new one; None where there is none now.

        Args:
            link: which trial a new one repeats or replicates; None = that is not looked at.
        """
        trials = self._trials()
        if waiting := self._waiting(trials):
            return self._hand_out(waiting[0])
        number = len(trials)
        too_early = self._search.lag is not None and not all(
            trial.state.is_finished() for trial in trials[: max(0, number - self._search.lag + 1)]
        )
        if number >= self._total(trials) or too_early:
            return None
        params, distributions = propose(self._search, trials, number)
        links = link(params, [read_record(trial, self._switch) for trial in trials]) if link else {}
        attrs = {_LINKS[name]: other for name, other in links.items()}
        self._create(
            create_trial(state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attrs)
        )
        return self._hand_out(self._trials()[number])

    def requeue(self, number: int) -> None:
        """Have a running trial whose worker was lost handed out again, before any new one."""
        self._handed_out.discard(number)

    def note_epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Note the first objective after an epoch and return whether the pruner ends the trial now.

        It is PRUNED in the ledger then. A second note of an epoch changes nothing and returns the same. A trial that
        repeats a finished one is not pruned: its result is known.

        Args:
            number: the trial.
            epoch: how many epochs it has done.
            metrics: the epoch's; an epoch without a finite objective is not noted.
        """
        trial, step = self._trials()[number], epoch - self._switch
        if trial.state.is_finished() or trial.user_attrs.get(DECISION, {}).get("prune"):
            return self._prune_if_decided(trial)
        value = metrics.get(self._search.objectives[0])
        if len(self._search.objectives) > 1 or step < 1 or value is None or not math.isfinite(value):
            return False
        if step not in trial.intermediate_values:
            with storage_errors(self._place):
                self._storage.set_trial_intermediate_value(trial._trial_id, step, float(value))
        if REPEAT_OF in trial.user_attrs or not self._is_judged(epoch):
            return False
        if trial.user_attrs.get(DECISION, {}).get("step", 0) >= step:
            return False
        prune, attrs = judge(self._search, self.name, self._trials(), number, (self._epochs or 0) - self._switch)
        self._set_attr(trial, DECISION, {"step": step, "prune": prune, "attrs": attrs})
        return self._prune_if_decided(self._trials()[number])

    def finish(self, number: int, metrics: Mapping[str, float]) -> None:
        """End a trial with its objectives; without a finite one it is failed. Ending twice changes nothing."""
        for name in self._search.objectives:
            value = metrics.get(name)
            if value is None or not math.isfinite(value):
                self.fail(number, f"the objective {name} is {'missing' if value is None else value}")
                return
        with storage_errors(self._place):
            self._study.tell(number, [float(metrics[name]) for name in self._search.objectives], skip_if_finished=True)

    def fail(self, number: int, reason: str) -> None:
        """End a trial as failed, with the reason. Ending twice changes nothing."""
        trial = self._trials()[number]
        if not trial.state.is_finished():
            self._set_attr(trial, REASON, reason)
            with storage_errors(self._place):
                self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def retry_failed(self) -> list[tuple[int, int]]:
        """Add a trial with the same parameters for each failed one that has none yet; return pairs (failed, new)."""
        trials = self._trials()
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        failed = [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in retried]
        for trial in failed:
            again = create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={RETRY_OF: trial.number},
            )
            self._create(again)
        return [(trial.number, len(trials) + index) for index, trial in enumerate(failed)]

    @property
    def _storage(self) -> BaseStorage:
        return self._study._storage  # keeps ended trials in memory, where ``self.storage`` reads all anew

    def _trials(self) -> list[FrozenTrial]:
        with storage_errors(self._place):
            return self._study.get_trials(deepcopy=False)

    def _total(self, trials: list[FrozenTrial]) -> int:
        return num_proposals(self._search, trials) + sum(RETRY_OF in trial.user_attrs for trial in trials)

    def _waiting(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in trials if not trial.state.is_finished() and trial.number not in self._handed_out]

    def _hand_out(self, trial: FrozenTrial) -> TrialRecord:
        self._handed_out.add(trial.number)
        return read_record(trial, self._switch)

    def _create(self, trial: FrozenTrial) -> None:
        with storage_errors(self._place):
            self._study.add_trial(trial)

    def _set_attr(self, trial: FrozenTrial, key: str, value: Any) -> None:
        with storage_errors(self._place):
            self._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _is_judged(self, epoch: int) -> bool:
        """Tell whether the pruner is asked after this epoch: not before its time, and not of a whole trial."""
        pruner, last = self._search.pruner, self._epochs or math.inf
        return pruner.kind != "none" and pruner.min_epochs <= epoch - self._switch and epoch < last

    def _prune_if_decided(self, trial: FrozenTrial) -> bool:
        if not trial.state.is_finished() and trial.user_attrs.get(DECISION, {}).get("prune"):
            with storage_errors(self._place):
                self._study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
            return True
        return trial.state == TrialState.PRUNED
