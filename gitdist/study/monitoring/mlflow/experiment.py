"""The MLflow experiment of a study: found by the study's identity under any name, else by name, else created.

A tag ``gitdist.identity.IDENTITY`` marks the experiment of each study that uses it. On a server, studies of one name
from several results directories share an experiment, as their runs differ by identity. In a database the artifacts of
an experiment are files of one results directory, so a second directory gets an experiment with another name.
"""

from pathlib import Path

from mlflow.entities import Experiment, LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.relocation import local_path, move_locations
from gitdist.study.monitoring.mlflow.uri import is_own_database

_IDENTITY, _STUDY, _ROLE = "gitdist.identity", "gitdist.study", "gitdist.role"
_DIGITS = 8  # of an identity, in the name of an experiment


class StudyExperiment:
    """Finds the experiment of one study in one store. The methods raise whatever MLflow raises."""

    def __init__(self, client: MlflowClient, uri: str, paths: StudyPaths, identity: str, *, database: bool) -> None:
        """Look for the experiment of the study with ``identity``.

        Args:
            client: of the store.
            uri: the store.
            paths: the study's files.
            identity: the study's own, see ``settle_identity``.
            database: whether the store is a database that this process opens itself; then artifacts are files in the
                results directory.
        """
        self._client, self._uri, self._paths, self._database = client, uri, paths, database
        self._identity, self._tag = identity, f"{_IDENTITY}.{identity}"

    def open(self) -> Experiment:
        """Return the experiment, which is created if it is missing and restored if it was deleted."""
        found = self.find() or self._create(self._free_name())
        number = found.experiment_id
        if found.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(number)
        if self._tag not in found.tags:
            self._client.set_experiment_tag(number, self._tag, self._paths.name)
        return self._client.get_experiment(number)

    def find(self) -> Experiment | None:
        """Return the experiment, deleted or not, its locations in this results directory; None if missing."""
        found = self._by_identity() or self._by_name()
        former = None if found is None else self._former_location(found)
        if found is None or former is None:
            return found
        move_locations(self._uri, former, self._paths.artefacts / former.name)
        return self._client.get_experiment(found.experiment_id)

    def _by_identity(self) -> Experiment | None:
        query = f"tags.`{self._tag}` = '{self._paths.name}'"
        found = self._client.search_experiments(ViewType.ALL, filter_string=query, order_by=["experiment_id ASC"])
        return min(found, key=lambda experiment: experiment.lifecycle_stage == LifecycleStage.DELETED, default=None)

    def _by_name(self) -> Experiment | None:
        found = self._client.get_experiment_by_name(self._paths.name)
        return None if found is None or self._is_anothers(found) else found

    def _free_name(self) -> str:
        name = self._paths.name
        taken = self._client.get_experiment_by_name(name) is not None
        return f"{name}-{self._identity[:_DIGITS]}" if taken else name

    def _create(self, name: str) -> Experiment:
        location = (self._paths.artefacts / name).as_uri() if self._database else None
        tags = {
            "mlflow.experimentKind": "custom_model_development",  # opens as model training, not as GenAI
            _STUDY: self._paths.name,
            self._tag: self._paths.name,
        }
        try:
            return self._client.get_experiment(self._client.create_experiment(name, location, tags))
        except MlflowException:  # another process was faster, or the answer to a first try was lost
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return found

    def _former_location(self, experiment: Experiment) -> Path | None:
        """Return the location that a database elsewhere has of a results directory other than this one; else None.

        Only ROOT/mlartifacts/NAME with a name that ``_create`` gives is one; others were chosen by somebody.
        """
        path, root = local_path(experiment.artifact_location), self._paths.artefacts
        if path is None or not self._database or is_own_database(self._paths, self._uri):
            return None
        names = (self._paths.name, f"{self._paths.name}-{self._identity[:_DIGITS]}")
        return path if path.parent.name == root.name and path.parent != root and path.name in names else None

    def _is_anothers(self, experiment: Experiment) -> bool:
        """Tell whether an experiment of this study's name has its files in another study's results directory."""
        if self._former_location(experiment) is None:
            return False
        marked = {name for name in experiment.tags if name.startswith(f"{_IDENTITY}.")}
        if marked:
            return True  # by others: by this study it would have been found
        query = f"tags.`{_ROLE}` = 'study'"  # the runs of gitdist 0.5 in an experiment without marks
        runs = self._client.search_runs([experiment.experiment_id], query, ViewType.ALL)
        return any(run.data.tags.get(_IDENTITY) != self._identity for run in runs)
