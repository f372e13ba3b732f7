"""A study from Python: its status, its trials as tables, its classifiers, and its Optuna study."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gitdist.api.arguments import plain_number
from gitdist.api.callbacks import TrialLabel
from gitdist.api.reading import find_files, reading
from gitdist.api.tables import epoch_table, trial_table
from gitdist.api.trained_trial import TrainedTrial, read_trial
from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.spec.search import check_point
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.storage import enqueue_point, open_optuna_study
from gitdist.study.status import StudyStatus, read_status

if TYPE_CHECKING:
    import optuna
    from pandas import DataFrame


def load_study(path: str | Path) -> "Study":
    """Return a study that was started, running or not, in this process or another.

    Args:
        path: ``RESULTS/NAME``: the study's directory, or its URI on an object store.

    Raises:
        GitdistError: there is no such study, it is a campaign, or its stored spec is damaged.
    """
    return Study(find_files(path))


class Study:
    """A study in its results. Every access reads its current state; only ``enqueue`` changes it.

    Members raise GitdistError if the study has not started a trial yet, or its files or ledger cannot be read.
    """

    def __init__(self, paths: StudyPaths) -> None:
        """Use the study with these files; ``gitdist.load_study`` and ``gitdist.run`` return one."""
        self._paths = paths

    def __repr__(self) -> str:
        return f"gitdist.load_study({f'{self._paths.results}/{self.name}'!r})"

    @property
    def name(self) -> str:
        """The study's name."""
        return self._paths.name

    @property
    def spec(self) -> StudySpec:
        """The study file that the study was last run with, with all defaults."""
        with self._paths.results.rewriting_errors():
            self._paths.pull()
            return load_stored_spec(self._paths)

    @property
    def status(self) -> StudyStatus:
        """The state of the study and of each trial, the driver that runs it, and an estimate of the time left."""
        with reading(self._paths) as study:
            return read_status(study)

    @property
    def notes(self) -> list[str]:
        """Notes, one line each: edits, damage, repeated points, trials that augment no class."""
        return list(self.status.notes)

    def trials(self) -> "DataFrame":
        """Return a table with one row per trial, started or queued by ``enqueue``, by its number or ``"baseline"``.

        Columns: ``state`` and ``reason`` as in ``status``; ``epoch``, the last one; each searched field by its name, if
        it was searched in the trial; ``objective/...`` of a finished trial, and ``feasible`` if the search has
        constraints (of replicates, whether their means are); ``val/...`` of the last evaluated epoch; ``test/...`` of a
        trial that was evaluated on test.
        """
        with reading(self._paths) as study:
            return trial_table(study)

    def rows(self) -> "DataFrame":
        """Return a table with one row per trial and epoch.

        Columns: ``trial``, its number or ``"baseline"``; ``epoch``, counted from 1; ``lr``, ``train/...`` and times in
        seconds; ``val/...`` of an epoch that was evaluated, those per class as lists in the order of the classes.
        """
        with reading(self._paths) as study:
            return epoch_table(study)

    @property
    def best(self) -> TrainedTrial:
        """The finished trial with the best objective.

        Raises:
            StudyError: no trial has finished, or there are several objectives; choose one with ``trial``.
        """
        return read_trial(self._paths, None)

    def trial(self, trial: TrialLabel) -> TrainedTrial:
        """Return a finished trial by its number, or ``"baseline"``.

        Raises:
            SpecError: this is neither a number nor ``"baseline"``.
            StudyError: there is no such trial, or it has not finished.
        """
        if trial != "baseline" and not isinstance(trial, int | np.integer):
            raise SpecError(f"a trial must be its number or 'baseline', but it is {trial!r}")
        return read_trial(self._paths, trial)

    @property
    def optuna_study(self) -> "optuna.Study":
        """The study that Optuna stores, for its visualisations; for changes use ``enqueue`` and ``gitdist.run``."""
        with reading(self._paths) as study:
            return open_optuna_study(study.spec.ledger, self._paths)

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """Queue a point of the search space: it is tried before further suggestions, in addition to ``search.total``.

        A process that runs the study tries it as its next trial; if there is none, the next ``gitdist.run`` does.

        Args:
            params: values of searched fields; the search suggests those that are left out.

        Raises:
            SpecError: the search space has no such field or value.
        """
        if not isinstance(params, Mapping):
            raise SpecError(f"a point must be values by searched field, but it is a {type(params).__name__}")
        point = {name: plain_number(value) for name, value in params.items()}
        with reading(self._paths) as study:
            if not point:
                raise SpecError("a point must have a searched field, but it has none; name at least one")
            try:
                check_point("point", point, study.spec.search.space)
            except ValueError as error:
                raise SpecError(str(error)) from None
            enqueue_point(study.spec.ledger, self._paths, point)
