"""The ledger: the Optuna storage, the only record of the search trials and of how they ended.

    next_trial   --> a trial enters the storage RUNNING, in one write, with all of its parameters; one that another
                     process has enqueued gets the parameters that it lacks, then becomes RUNNING
    report       --> the epoch's value, then the pruner's decision with its rungs, then PRUNED if the trial is pruned
    finish, fail --> COMPLETE or FAIL

The last metrics and the constraints' violations are attributes of a trial, written before it is pruned or finished.

Each step is one write, or several writes that each determine the next. So a driver can be killed between any two of
them: the next driver gets the RUNNING trials again, under their numbers and before any new trial, and when it reports
the last epoch again, the decision is the same.

An outage of a server is the same to a method as a kill of the driver: it is called again once the server is back, and
reads first whether the write that was interrupted has arrived.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import GitdistError, LedgerOutageError, StudyError, first_line
from gitdist.outage import Outage
from gitdist.spec import SearchSpec, StudySpec
from gitdist.spec.objective import VALIDATION_MEANS
from gitdist.spec.search import SEED, check_point
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.integrity import damaged_ledger_error
from gitdist.study.ledger.lease import read_owners
from gitdist.study.ledger.observations import OBSERVATIONS, read_observations
from gitdist.study.ledger.points import (
    POINT,
    Group,
    find_distribution,
    group_trials,
    merge_trials,
    missing_seeds,
    point_record,
)
from gitdist.study.ledger.pruning import DECISION, build_pruner, should_prune
from gitdist.study.ledger.records import (
    CONSTRAINT,
    FIXED,
    MLFLOW_RUN,
    REASON,
    REPEAT_OF,
    REPLICATE_OF,
    RETRY_OF,
    VIOLATES,
    TrialRecord,
    best_of,
    pareto_of,
    read_record,
)
from gitdist.study.ledger.stopping import Stop, find_stop
from gitdist.study.ledger.storage import (
    close_storage,
    describe_storage,
    open_storage,
    read_storage,
    settle_writes,
    storage_errors,
)
from gitdist.study.ledger.suggestion import Suggestions, is_additional, num_suggestions

__all__ = ["Ledger", "Link", "Stop", "TrialRecord"]

Link = Callable[[Mapping[str, Any], Sequence[TrialRecord]], Mapping[str, int]]
"""``link(params, records)`` returns ``repeat_of`` or ``replicate_of`` of a new trial (see ``TrialRecord``), or {}."""

DECIDED = "gitdist.decided"  # system attribute of an enqueued trial: its parameters and attributes

_LINKS = {"repeat_of": REPEAT_OF, "replicate_of": REPLICATE_OF}

P = ParamSpec("P")
T = TypeVar("T")


def _repeated_after_outage(method: Callable[Concatenate["Ledger", P], T]) -> Callable[Concatenate["Ledger", P], T]:
    """Decorate a method that may be called again wherever it was interrupted; see ``Ledger.wait_for_outages``."""

    @wraps(method)
    def call(self: "Ledger", /, *args: P.args, **kwargs: P.kwargs) -> T:
        def first() -> T:
            return method(self, *args, **kwargs)

        def again() -> T:
            settle_writes(self.storage)
            self._check_owner(True)
            return first()

        return first() if self._outage is None else self._outage.wait_out(first, again)

    return call


class Ledger:
    """One study's trials in an Optuna storage. Owned by the driver; not thread-safe."""

    def __init__(
        self,
        storage: BaseStorage,
        study_name: str,
        search: SearchSpec,
        switch_epoch: int = 0,
        epochs: int | None = None,
        *,
        seeds: Sequence[int] = (),
        storage_name: str = "of the study",
        create: bool = True,
    ) -> None:
        """Open the study in ``storage``.

        Args:
            storage: where the trials are stored.
            study_name: the study's name there.
            search: the search part of the spec.
            switch_epoch: epochs before the switch, which are not stored because all trials are equal until then.
            epochs: epochs of a complete trial, which is not pruned; required with a pruner.
            seeds: of the trials of each point; empty = a point is one trial.
            storage_name: the storage's name in messages.
            create: create the study if it is missing; if false, nothing is written.

        Raises:
            StudyError: the storage cannot be read, or lacks the study, or the study there has other objectives.
        """
        self.storage, self.name = storage, study_name
        self._search, self._switch, self._epochs, self._storage_name = search, switch_epoch, epochs, storage_name
        self._seeds = tuple(seeds)
        self._suggestions: Suggestions | None = None  # made when the first one is needed
        self._assigned: set[int] = set()
        self._outage: Outage | None = None
        self._check_owner: Callable[[bool], None] = lambda thorough: None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with storage_errors(storage_name):
            if create:
                optuna.create_study(
                    storage=storage, study_name=study_name, directions=search.directions, load_if_exists=True
                )
            self._study = self._load(search)
            if create and self._study.metric_names != list(search.objectives):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self._study.set_metric_names(list(search.objectives))

    def _load(self, search: SearchSpec) -> optuna.Study:
        try:
            study = optuna.load_study(
                storage=self.storage,
                study_name=self.name,
                sampler=optuna.samplers.RandomSampler(),  # not used, see ``Suggestions``
                pruner=optuna.pruners.NopPruner(),
            )
        except KeyError:
            raise StudyError(
                f"the ledger {self._storage_name} has no study '{self.name}'; `gitdist run` starts it"
            ) from None
        directions = tuple(direction.name.lower() for direction in study.directions)
        if directions != search.directions:
            raise StudyError(
                f"the ledger {self._storage_name} has a study '{self.name}' with directions {', '.join(directions)},"
                f" but search.objective is {', '.join(search.objectives)}; give the study another name"
            )
        return study

    @classmethod
    def open(cls, paths: StudyPaths, spec: StudySpec, *, read_only: bool = False) -> Self:
        """Open the storage and the ledger of a study; if ``read_only``, it must exist and is not changed.

        Raises:
            StudyError: as ``__init__``, or something in it is damaged.
        """
        storage = (read_storage if read_only else open_storage)(spec.ledger, paths)
        try:
            ledger = cls(
                storage,
                spec.name,
                spec.search,
                spec.trial.switch_epoch,
                spec.trial.epochs,
                seeds=spec.replicate_seeds,
                storage_name=describe_storage(spec.ledger, paths),
                create=not read_only,
            )
            ledger.trials()
            ledger.get_attr("identity")
            read_owners(storage, spec.name)
            return ledger
        except BaseException as error:
            close_storage(storage)
            if isinstance(error, GitdistError) or not isinstance(error, Exception):
                raise
            # Errors of SQLAlchemy or Optuna, or of a value with another type than it was written with.
            raise damaged_ledger_error(describe_storage(spec.ledger, paths), first_line(error)) from error

    @staticmethod
    def exists(paths: StudyPaths, spec: StudySpec) -> bool:
        """Return whether a study's ledger exists; assume so if it is in a database."""
        local = {"sqlite": paths.ledger, "journal": paths.journal}.get(spec.ledger)
        return local is None or local.exists()

    def close(self) -> None:
        """Close the storage's connections."""
        close_storage(self.storage)

    def wait_for_outages(self, check_owner: Callable[[bool], None]) -> None:
        """From now on, wait while the ledger's server is away, in every method.

        ``check_owner(True)`` raises StudyError if another driver has taken over the study in the meantime.
        """
        self._outage = Outage(f"the ledger {self._storage_name}", LedgerOutageError)
        self._check_owner = check_owner

    @property
    def optuna_study(self) -> optuna.Study:
        """The study in the storage, for reading."""
        return self._study

    @property
    @_repeated_after_outage
    def total(self) -> int:
        """The number of search trials after the study has ended, including retries of failed trials."""
        return self._total(self._trials())

    @_repeated_after_outage
    def get_attr(self, key: str) -> Any:
        """Return a study attribute; None if it was not set."""
        with storage_errors(self._storage_name):
            return self._study.user_attrs.get(f"gitdist.{key}")

    @_repeated_after_outage
    def set_attr(self, key: str, value: Any) -> None:
        """Set a study attribute to a JSON value."""
        with storage_errors(self._storage_name):
            self._study.set_user_attr(f"gitdist.{key}", value)

    @_repeated_after_outage
    def set_test_metrics(self, name: str, metrics: Mapping[str, float]) -> None:
        """Store the metrics on test of ``name``, such as ``trial 3``, for programs that read the ledger.

        They are an attribute of the study: they are measured after the trial has ended, when Optuna refuses to change
        it.
        """
        with storage_errors(self._storage_name):
            self._study.set_user_attr(f"{name} on test", dict(metrics))

    @_repeated_after_outage
    def set_mlflow_run(self, number: int, run_id: str) -> None:
        """Store the id of a trial's MLflow run; does nothing if the trial has ended."""
        trial = self._trials()[number]
        if not trial.state.is_finished() and trial.user_attrs.get(MLFLOW_RUN) != run_id:
            self._set_trial_attr(trial, MLFLOW_RUN, run_id)

    @_repeated_after_outage
    def trials(self) -> list[TrialRecord]:
        """Return all search trials by number."""
        return [self._record(trial) for trial in self._trials()]

    @_repeated_after_outage
    def num_open(self) -> int:
        """Return how many trials have not ended: not yet assigned, or running."""
        trials = self._trials()
        return max(0, self._total(trials) - len(trials)) + sum(not trial.state.is_finished() for trial in trials)

    @_repeated_after_outage
    def stop(self) -> Stop | None:
        """Return the rule that has ended the search before all of its points were started; None if none has."""
        groups = self._groups(self._trials())
        return self._stop(groups) if len(groups) < self._planned(groups) else None

    @_repeated_after_outage
    def worked_hours(self) -> float:
        """Return for how many hours drivers have run the study in all, up to their last heartbeats."""
        owners = read_owners(self.storage, self.name)
        return sum((owner.last_heartbeat - owner.since).total_seconds() for owner in owners) / 3600

    @_repeated_after_outage
    def points(self) -> list[TrialRecord]:
        """Return all points by number of their first trials: the trials, or the means of replicates."""
        return [point_record(group, self._seeds, self._switch) for group in self._groups(self._trials())]

    @_repeated_after_outage
    def merged_trials(self) -> list[FrozenTrial]:
        """Return all points as Optuna's trials, as the sampler reads them: without the seeds of replicates."""
        return self._merge(self._groups(self._trials()))

    def best(self) -> TrialRecord | None:
        """Return the feasible finished point with the best first objective; the earliest if several are equal."""
        return best_of(self.points(), self._search.directions)

    def pareto(self) -> list[TrialRecord]:
        """Return the Pareto front of the feasible finished points by number; for one objective the best one alone."""
        return pareto_of(self.points(), self._search.directions)

    @_repeated_after_outage
    def next_trial(self, link: Link | None = None) -> TrialRecord | None:
        """Assign a running trial without a worker, else a new one; None if no trial can be assigned now.

        Of new ones, those that were enqueued come first. One of them that the search would not suggest is failed.

        Raises:
            SpecError: the sampler or pruner cannot be built.
            StudyError: the sampler raises an error.
        """
        trials = self._reject_enqueued(self._trials())
        running = (trial for trial in trials if trial.state == TrialState.RUNNING)
        if trial := next((trial for trial in running if trial.number not in self._assigned), None):
            return self._assign(trial)
        groups = self._groups(trials)
        for group in groups:
            if group[0].state != TrialState.WAITING and (seeds := missing_seeds(group, self._seeds)):
                return self._replicate(trials, group[0], seeds[0], link)
        waiting = (number for number, (first, *_) in enumerate(groups) if first.state == TrialState.WAITING)
        number = next(waiting, len(groups))
        if number == len(groups) and (number >= self._planned(groups) or self._stop(groups)):
            return None
        return None if self._must_wait(groups, number) else self._suggest(trials, groups, number, link)

    def _suggest(
        self, trials: list[FrozenTrial], groups: Sequence[Group], number: int, link: Link | None
    ) -> TrialRecord:
        """Assign the first trial of point ``number`` with the next parameters; it waits, or is added."""
        waiting = groups[number][0] if number < len(groups) else None
        suggestions, self._suggestions = self._suggestions or self._open_suggestions(), None
        if waiting and DECIDED in waiting.system_attrs:  # by a driver that was killed before it had written all
            return self._assign(self._start(waiting, waiting.system_attrs[DECIDED]))
        made = suggestions.suggest(self._merge(groups), number)
        params = {**made.params, **({SEED: self._seeds[0]} if self._seeds else {})}
        attrs = self._find_links(params, trials, link)
        if waiting:
            decided = {"params": params, "user_attrs": attrs, "system_attrs": made.system_attrs}
            trial = self._start(waiting, decided)
        else:
            trial = self._create(params, attrs, made.system_attrs)
        if trial.number == (len(trials) if waiting is None else waiting.number):
            self._suggestions = suggestions  # else another process has enqueued a trial since the trials were read
        return self._assign(trial)

    def _replicate(self, trials: list[FrozenTrial], first: FrozenTrial, seed: int, link: Link | None) -> TrialRecord:
        """Assign a new trial of a point, with another seed."""
        params = {**first.params, SEED: seed}
        return self._assign(self._create(params, {POINT: first.number, **self._find_links(params, trials, link)}))

    def _find_links(self, params: Mapping[str, Any], trials: list[FrozenTrial], link: Link | None) -> dict[str, int]:
        """Return the attributes of a new trial that link it to another with the same training."""
        links = link(params, [read_record(each, self._switch) for each in trials]) if link else {}
        return {_LINKS[name]: other for name, other in links.items()}

    def _open_suggestions(self) -> Suggestions:
        pruner = build_pruner(self._search.pruner, self._num_pruning_steps)
        stored = self.get_attr(OBSERVATIONS) or {"trials": []}
        return Suggestions(self._search, self.name, pruner, read_observations(self._search, stored["trials"]))

    def _start(self, waiting: FrozenTrial, decided: Mapping[str, Any]) -> FrozenTrial:
        """Let a waiting trial run. What was decided is written first, so that the next driver can do the rest."""
        trial_id = waiting._trial_id
        with storage_errors(self._storage_name):
            self._storage.set_trial_system_attr(trial_id, DECIDED, decided)
            for name in decided["params"].keys() - waiting.params.keys():
                searched = find_distribution(self._search, self._seeds, name)
                value = searched.to_internal_repr(decided["params"][name])
                self._storage.set_trial_param(trial_id, name, value, searched)
            for name, attr in decided["system_attrs"].items():
                self._storage.set_trial_system_attr(trial_id, name, attr)
            for name, attr in decided["user_attrs"].items():
                self._storage.set_trial_user_attr(trial_id, name, attr)
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            return self._storage.get_trial(trial_id)

    def _reject_enqueued(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Fail the enqueued points that the search would not suggest; return all trials."""
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        problems = {trial.number: problem for trial in waiting if (problem := self._enqueued_problem(trial))}
        for number, problem in problems.items():
            self.fail(number, problem)
        return self._trials() if problems else trials

    def _enqueued_problem(self, trial: FrozenTrial) -> str | None:
        """Return in one line why the search would not suggest an enqueued point; None if it would."""
        try:
            check_point("the enqueued point", trial.system_attrs.get(FIXED, {}), self._search.space)
        except ValueError as error:
            return str(error)
        return None

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        """Return a trial's record, without the values of an enqueued point that the search would not suggest."""
        record = read_record(trial, self._switch)
        return replace(record, params={}) if not trial.params and self._enqueued_problem(trial) else record

    def requeue(self, number: int) -> None:
        """Let ``next_trial`` assign a running trial again, whose worker was lost, before any new one."""
        self._assigned.discard(number)

    @_repeated_after_outage
    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Store the first objective after an epoch; return whether the trial is pruned.

        Reporting an epoch again changes nothing and returns the same decision. An objective that is not finite is not
        stored. A trial that repeats a finished one is not pruned: its result is known.
        """
        trial, step = self._trials()[number], epoch - self._switch
        if trial.state.is_finished() or trial.user_attrs.get(DECISION, {}).get("prune"):
            return self._prune_if_decided(trial)
        value = metrics.get(self._search.objectives[0])
        if len(self._search.objectives) > 1 or step < 1 or value is None or not math.isfinite(value):
            return False
        if step not in trial.intermediate_values:
            with storage_errors(self._storage_name):
                self._storage.set_trial_intermediate_value(trial._trial_id, step, float(value))
        if REPEAT_OF in trial.user_attrs or not self._is_pruning_epoch(epoch):
            return False
        if trial.user_attrs.get(DECISION, {}).get("step", 0) >= step:
            return False
        prune, attrs = should_prune(self._search, self.name, self._trials(), number, self._num_pruning_steps)
        if prune:
            self._store_metrics(trial, metrics)
        self._set_trial_attr(trial, DECISION, {"step": step, "prune": prune, "attrs": attrs})
        return self._prune_if_decided(self._trials()[number])

    @_repeated_after_outage
    def finish(self, number: int, metrics: Mapping[str, float]) -> None:
        """End a trial with its objectives; fail it if these or constraints are not finite.

        Ending twice changes nothing.
        """
        trial = self._trials()[number]
        if trial.state.is_finished():
            return
        for name in (*self._search.objectives, *(each.metric for each in self._search.constraints)):
            value = metrics.get(name)
            if value is None or not math.isfinite(value):
                kind = "objective" if name in self._search.objectives else "constraint on"
                self.fail(number, f"the {kind} {name} is {'missing' if value is None else value}")
                return
        self._store_metrics(trial, metrics)
        with storage_errors(self._storage_name):
            self._study.tell(number, [float(metrics[name]) for name in self._search.objectives], skip_if_finished=True)

    @_repeated_after_outage
    def fail(self, number: int, reason: str) -> None:
        """End a trial as failed, with the reason. Ending twice changes nothing."""
        trial = self._trials()[number]
        if not trial.state.is_finished():
            self._set_trial_attr(trial, REASON, reason)
            with storage_errors(self._storage_name):
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def retry_failed(self) -> list[tuple[int, int]]:
        """Add a trial with the same parameters for each failed trial not yet retried; return pairs (failed, new)."""
        return [(trial.number, self._retry(trial)) for trial in self._unretried()]

    @property
    def _storage(self) -> BaseStorage:
        return self._study._storage  # caches ended trials in memory; ``self.storage`` would read all of them again

    @_repeated_after_outage
    def _unretried(self) -> list[FrozenTrial]:
        trials = self._trials()
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        failed = [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in retried]
        return [trial for trial in failed if trial.params or FIXED not in trial.system_attrs]  # not if it was rejected

    @_repeated_after_outage
    def _retry(self, failed: FrozenTrial) -> int:
        """Return the number of the trial that retries a failed one; add it if it is missing."""
        trials = self._trials()
        number = next((trial.number for trial in trials if trial.user_attrs.get(RETRY_OF) == failed.number), None)
        if number is not None:
            return number
        return self._create(failed.params, {RETRY_OF: failed.number}).number

    def _trials(self) -> list[FrozenTrial]:
        with storage_errors(self._storage_name):
            return self._study.get_trials(deepcopy=False)

    def _groups(self, trials: Sequence[FrozenTrial]) -> list[Group]:
        return group_trials(trials, self._seeds)

    def _merge(self, groups: Sequence[Group]) -> list[FrozenTrial]:
        return [merge_trials(group, self._seeds) for group in groups]

    def _total(self, trials: list[FrozenTrial]) -> int:
        groups = self._groups(trials)
        unstarted = 0 if self._stop(groups) else self._planned(groups) - len(groups)
        missing = sum(len(missing_seeds(group, self._seeds)) for group in groups)
        return len(trials) + missing + unstarted * max(1, len(self._seeds))

    def _planned(self, groups: Sequence[Group]) -> int:
        """Return how many points there are in the end without a stop rule."""
        points = self._merge(groups)
        return num_suggestions(self._search, points) + sum(map(is_additional, points))

    def _stop(self, groups: Sequence[Group]) -> Stop | None:
        if not self._search.may_stop and self._search.max_hours is None:
            return None
        hours = 0.0 if self._search.max_hours is None else self.worked_hours()
        return find_stop(self._search, [point_record(group, self._seeds, self._switch) for group in groups], hours)

    def _must_wait(self, groups: Sequence[Group], number: int) -> bool:
        """Return whether the suggestion of point ``number`` needs the outcome of a running one (``search.lag``)."""
        lag = self._search.lag
        if lag is None:
            return False
        earlier = groups[: max(0, number - lag + 1)]
        return not all(point.state.is_finished() for point in self._merge(earlier))

    @property
    def _num_pruning_steps(self) -> int:
        """The epochs of a complete trial after the switch."""
        return max(1, (self._epochs or 0) - self._switch)

    def _assign(self, trial: FrozenTrial) -> TrialRecord:
        self._assigned.add(trial.number)
        return read_record(trial, self._switch)

    def _create(
        self, params: Mapping[str, Any], attrs: Mapping[str, Any], system_attrs: Mapping[str, Any] | None = None
    ) -> FrozenTrial:
        """Add a running trial in one write; return it with its number."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions={name: find_distribution(self._search, self._seeds, name) for name in params},
            user_attrs=dict(attrs),
            system_attrs=dict(system_attrs or {}),
        )
        with storage_errors(self._storage_name):
            return self._storage.get_trial(self._storage.create_new_trial(self._study._study_id, trial))

    def _set_trial_attr(self, trial: FrozenTrial, key: str, value: Any) -> None:
        with storage_errors(self._storage_name):
            self._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _store_metrics(self, trial: FrozenTrial, metrics: Mapping[str, float]) -> None:
        """Store the metrics and the violations of constraints that a trial ends with, under the names of its rows.

        A pruned trial has those of its last epoch, as it has the objective of that epoch: Optuna's TPE ranks it so.
        """
        for name in VALIDATION_MEANS:
            if name in metrics and math.isfinite(metrics[name]):
                self._set_trial_attr(trial, name, float(metrics[name]))
        violations = {
            str(each): each.violation(metrics.get(each.metric, math.nan)) for each in self._search.constraints
        }
        with storage_errors(self._storage_name):
            for name, violation in violations.items():
                if math.isfinite(violation):
                    self._storage.set_trial_system_attr(trial._trial_id, f"{CONSTRAINT}{name}", float(violation))
        if violated := [name for name, violation in violations.items() if violation > 0]:
            self._set_trial_attr(trial, VIOLATES, ", ".join(violated))

    def _is_pruning_epoch(self, epoch: int) -> bool:
        """Return whether the pruner decides after this epoch: not before ``min_epochs``, not at the last epoch."""
        pruner, last = self._search.pruner, self._epochs or math.inf
        return pruner.kind != "none" and pruner.min_epochs <= epoch - self._switch and epoch < last

    def _prune_if_decided(self, trial: FrozenTrial) -> bool:
        if not trial.state.is_finished() and trial.user_attrs.get(DECISION, {}).get("prune"):
            with storage_errors(self._storage_name):
                self._study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
            return True
        return trial.state == TrialState.PRUNED
