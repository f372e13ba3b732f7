"""A study from Python: its status, its trials as tables, its classifiers, and its Optuna study."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitdist.api.callbacks import TrialLabel
from gitdist.api.reading import reading
from gitdist.api.tables import epoch_table, trial_table
from gitdist.api.trained_trial import TrainedTrial, read_trial
from gitdist.errors import SpecError
from gitdist.input_file import expand_home
from gitdist.spec import StudySpec
from gitdist.spec.search import check_point
from gitdist.spec.study import check_name
from gitdist.study.campaign import find_study
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import open_results
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
    root, name = _split(path)
    results = open_results(root)
    results.connect()
    with results.rewriting_errors():
        return Study(find_study(results, name)[0])


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
        """Return a table with one row per trial that was started, by its number or ``"baseline"``.

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
            StudyError: there is no such trial, or it has not finished.
        """
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
        point = {name: value.item() if hasattr(value, "item") else value for name, value in params.items()}
        with reading(self._paths) as study:
            if not point:
                raise SpecError("a point must have a searched field, but it has none; name at least one")
            try:
                check_point("point", point, study.spec.search.space)
            except ValueError as error:
                raise SpecError(str(error)) from None
            enqueue_point(study.spec.ledger, self._paths, point)


def _split(path: str | Path) -> tuple[str, str]:
    """Return results and name of a study's path."""
    if "://" in str(path):
        root, _, name = str(path).rstrip("/").rpartition("/")
    else:
        directory = expand_home(path).absolute()
        root, name = str(directory.parent), directory.name
    try:
        return root, check_name(name)
    except ValueError as error:
        raise SpecError(f"{error}, but it is '{name}'; pass RESULTS/NAME") from None
