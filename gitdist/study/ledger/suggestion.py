"""Suggests the parameters of trials: those of a plain Optuna loop, which asks for a trial and tells how it ended.

    a grid, or a space of at most ``total`` points --> the next point that was not tried
    else: the algorithm's sampler asks (points of ``try_first`` and enqueued ones come first; it suggests the fields
          that they leave out)

The loop's study is in memory, so that a trial enters the ledger in one write with all of its parameters. What the next
suggestion depends on is written with it, as a system attribute of the trial: which trials were told since the last
suggestion, what the sampler has stored in its study, and the sampler itself, with its random state. A driver that
resumes the search makes the same study from them.
"""

import base64
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import GitdistError, StudyError
from gitdist.plugins import describe_raised
from gitdist.spec import SearchSpec
from gitdist.spec.dimension import dependency_order
from gitdist.study.ledger.algorithms import ALGORITHMS, build_sampler
from gitdist.study.ledger.records import FIXED, RETRY_OF
from gitdist.study.ledger.space import distribution, point_key, point_plan

SAMPLER = "gitdist.sampler"  # system attribute of a trial, see ``Suggestions._record``

_CHECKED_TRIALS = 3  # some samplers suggest the first one at random

Point = dict[str, Any]


@dataclass(frozen=True)
class Suggestion:
    """The parameters of a trial and their distributions, both only for the fields searched in it."""

    params: Point
    distributions: dict[str, BaseDistribution]
    system_attrs: dict[str, Any]  # of the trial in the ledger: the sampler's own, and ``SAMPLER`` unless it has a plan


class Suggestions:
    """The suggestions of one search. The trials that its methods take are all of the ledger's, by number."""

    def __init__(
        self,
        search: SearchSpec,
        study_name: str = "study",
        pruner: BasePruner | None = None,
        observations: Sequence[FrozenTrial] = (),
    ) -> None:
        """Build nothing yet.

        Args:
            search: the search part of the spec.
            study_name: of the study, by which Hyperband assigns trials to brackets.
            pruner: of the study; a sampler reads only the trials of a new trial's bracket.
            observations: ended trials of another study, which the sampler reads too.
        """
        self._search, self._name, self._pruner, self._observations = search, study_name, pruner, observations
        self._study: optuna.Study | None = None
        self._told: set[int] = set()

    def suggest(self, trials: Sequence[FrozenTrial], number: int) -> Suggestion:
        """Suggest the next trial, or the fields that an enqueued one leaves out.

        With ``search.lag`` the outcomes of trials after ``number - lag`` are not read.

        Args:
            trials: of the ledger.
            number: of the trial: that of one that waits, or ``len(trials)``.

        Raises:
            SpecError: as ``build_sampler``.
            StudyError: the sampler raises an error, or its state in the ledger cannot be read.
        """
        plan = point_plan(self._search)
        study = self._study or self._open(trials)
        self._study = None  # until all is done: after an error, it is made again from the ledger
        for trial in trials[len(study.get_trials(deepcopy=False)) - len(self._observations) :]:
            study.add_trial(_copy(trial, told=False))
        with _describing_errors(self._search.resolved_algorithm):
            told = self._tell(study, self._visible(trials, number))
            before = _system_attrs(study)
            if number == len(trials) and (point := self._next_point(plan, trials)):
                study.enqueue_trial(point)
            asked = self._ask(study)
        attrs = {name: value for name, value in asked.system_attrs.items() if name != FIXED}
        if plan is None:
            attrs[SAMPLER] = self._record(study, told, before, asked.number)
        self._study = study
        return Suggestion(asked.params, asked.distributions, attrs)

    def _visible(self, trials: Sequence[FrozenTrial], number: int) -> Sequence[FrozenTrial]:
        """Return the trials whose outcomes the suggestion of trial ``number`` may depend on."""
        return trials if self._search.lag is None else trials[: max(0, number - self._search.lag + 1)]

    def _next_point(self, plan: Sequence[Point] | None, trials: Sequence[FrozenTrial]) -> Point:
        """Return the values that the next trial has in any case."""
        if plan is not None:
            return _untried(plan, trials)[0]
        index = len(trials) - sum(map(is_additional, trials))
        return self._search.try_first[index] if index < len(self._search.try_first) else {}

    def _ask(self, study: optuna.Study) -> FrozenTrial:
        trial, space = study.ask(), self._search.space
        for name in dependency_order(space):
            if space[name].applies(trial.params):
                trial._suggest(name, distribution(space[name]))  # as Study.ask does if nothing is conditional
        return study.get_trials(deepcopy=False)[trial.number]

    def _tell(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[int]:
        """Tell the study how trials have ended, in the order of their numbers; return which were told."""
        told = [number for number, trial in enumerate(trials) if trial.state.is_finished() and number not in self._told]
        storage = study._storage
        for number in told:
            trial, known = trials[number], study.get_trials(deepcopy=False)[number + len(self._observations)]
            for step, value in trial.intermediate_values.items():
                storage.set_trial_intermediate_value(known._trial_id, step, value)
            for name, value in _attrs_of_samplers(trial).items():  # constraints
                if name not in known.system_attrs:
                    storage.set_trial_system_attr(known._trial_id, name, value)
            values = trial.values if trial.state == TrialState.COMPLETE else None
            study.tell(known.number, values, trial.state)
            self._told.add(number)
        return told

    def _open(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        """Return a study in which the trials of the ledger are as they were when the last suggestion was made."""
        study = optuna.create_study(
            study_name=self._name,
            directions=self._search.directions,
            sampler=build_sampler(self._search),
            pruner=self._pruner or optuna.pruners.NopPruner(),
        )
        study.add_trials(self._observations)
        records = [trial.system_attrs[SAMPLER] for trial in trials if SAMPLER in trial.system_attrs]
        self._told = {number for record in records for number in record["told"]}
        changed: dict[str, dict[str, Any]] = {}
        for record in records:
            for name, value in record["study"].items():
                study._storage.set_study_system_attr(study._study_id, name, value)
            for number, attrs in record["trials"].items():
                changed[number] = {**changed.get(number, {}), **attrs}
        for number, trial in enumerate(trials):
            study.add_trial(_copy(trial, told=number in self._told, attrs=changed.get(str(number), {})))
        if records:
            study.sampler = _load_sampler(records[-1])
        return study

    def _record(
        self, study: optuna.Study, told: list[int], before: tuple[dict[str, Any], list[dict[str, Any]]], asked: int
    ) -> dict[str, Any]:
        """Return what later suggestions depend on, as JSON values.

        ``told``: numbers of the trials that were told since the last suggestion; ``study`` and ``trials``: system
        attributes that the sampler has written since then, of the study and, by number, of other trials than the new
        one; ``sampler``: the sampler, pickled, compressed and in Base64; ``optuna``: the version that has pickled it.
        """
        study_before, trials_before = before
        study_after, trials_after = _system_attrs(study)
        first = len(self._observations)
        changed = {
            str(index - first): _changes(attrs, trials_before[index])
            for index, attrs in enumerate(trials_after)
            if index != asked and attrs != trials_before[index]
        }
        try:
            sampler = pickle.dumps(study.sampler)
        except Exception as error:
            raise StudyError(
                f"the sampler of search.algorithm '{self._search.algorithm}' must be one that pickle can store, for "
                f"the search to be resumed, but that raised {describe_raised(error)}; change the sampler"
            ) from error
        return {
            "told": told,
            "study": _changes(study_after, study_before),
            "trials": changed,
            "sampler": base64.b64encode(zlib.compress(sampler)).decode(),
            "optuna": optuna.__version__,
        }


def check_sampler(search: SearchSpec) -> None:
    """Build the search's sampler; let one of another package, or with options, suggest trials with made-up outcomes.

    Raises:
        SpecError: as ``build_sampler``.
        StudyError: the sampler raises an error, such as that it needs another package.
    """
    if search.resolved_algorithm in ALGORITHMS and not search.options:
        build_sampler(search)
        return
    search = search.model_copy(update={"try_first": (), "startup": 1})  # the sampler itself suggests the second one
    made_up, trials = Suggestions(search), list[FrozenTrial]()
    for number in range(min(num_suggestions(search, []), _CHECKED_TRIALS)):
        made = made_up.suggest(trials, number)
        trials.append(
            create_trial(
                values=[0.0] * len(search.objectives),
                params=made.params,
                distributions=made.distributions,
                system_attrs=made.system_attrs,
            )
        )


def num_suggestions(search: SearchSpec, past: Sequence[FrozenTrial]) -> int:
    """Return how many trials a search has, including past ones but not retries and enqueued ones."""
    plan = point_plan(search)
    if plan is None:
        return search.total
    suggested = sum(not is_additional(trial) for trial in past)
    return min(search.total, suggested + len(_untried(plan, past)))


def is_additional(trial: FrozenTrial) -> bool:
    """Return whether a trial is none of the search's ``total``: a retry, or a point that was enqueued."""
    return RETRY_OF in trial.user_attrs or FIXED in trial.system_attrs


def _untried(plan: Sequence[Point], past: Sequence[FrozenTrial]) -> list[Point]:
    tried = {point_key(trial.params) for trial in past}
    return [point for point in plan if point_key(point) not in tried]


def _copy(trial: FrozenTrial, *, told: bool, attrs: Mapping[str, Any] | None = None) -> FrozenTrial:
    """Return a trial of the ledger as the study knows it: ended only if it was ``told``; ``attrs`` were changed."""
    attrs = {**_attrs_of_samplers(trial), **(attrs or {})}
    waits = trial.state == TrialState.WAITING
    return create_trial(
        state=trial.state if told or waits else TrialState.RUNNING,
        values=trial.values if told and trial.state != TrialState.FAIL else None,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=attrs,
        intermediate_values=trial.intermediate_values if told else {},
    )


def _attrs_of_samplers(trial: FrozenTrial) -> dict[str, Any]:
    return {name: value for name, value in trial.system_attrs.items() if name != SAMPLER}


def _system_attrs(study: optuna.Study) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the system attributes of a study and of its trials."""
    of_study = study._storage.get_study_system_attrs(study._study_id)
    return of_study, [trial.system_attrs for trial in study.get_trials(deepcopy=False)]


def _changes(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] != value}


def _load_sampler(record: Mapping[str, Any]) -> BaseSampler:
    try:
        sampler: BaseSampler = pickle.loads(zlib.decompress(base64.b64decode(record["sampler"])))
    except Exception as error:
        raise StudyError(
            f"the sampler that Optuna {record['optuna']} has stored in the ledger cannot be read with Optuna "
            f"{optuna.__version__} ({describe_raised(error)}); install that version"
        ) from error
    return sampler


@contextmanager
def _describing_errors(algorithm: str) -> Iterator[None]:
    """Make an error in a sampler one line that names its algorithm."""
    try:
        yield
    except GitdistError:
        raise
    except Exception as error:
        remedy = "install the package" if isinstance(error, ImportError) else "correct search.options"
        raise StudyError(
            f"the sampler of search.algorithm '{algorithm}' raised {describe_raised(error)}; {remedy}, or choose "
            "another algorithm"
        ) from error
