"""Opens a study's experiment in an MLflow store; describes MLflow's errors in one line without passwords.

``open_experiment`` finds the experiment by the study's identity, else by the study's name, else creates it. A tag
``gitdist.identity.IDENTITY`` marks the experiment of each study that uses it. On a server, studies of one name from
several results directories share an experiment, since their runs differ by identity. In a database the artifacts of an
experiment are files of one results directory, so a second directory gets an experiment with another name.
"""

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Experiment, LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from gitdist.address import without_secrets
from gitdist.errors import GitdistError, StudyError, first_line
from gitdist.study.checks import mlflow_scheme
from gitdist.study.files.attribution import read_identity
from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.database import (
    copy_database,
    ensure_database,
    is_read_only,
    local_path,
    move_locations,
    relocate_artifacts,
)
from gitdist.study.monitoring.mlflow.runs_table import KIND_TAG, store_view, table_link, table_links
from gitdist.study.monitoring.mlflow.uri import database_file, is_own_database

# By default, MLflow waits minutes per call for a server that does not answer.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_IDENTITY, _STUDY, _ROLE = "gitdist.identity", "gitdist.study", "gitdist.role"
_RUN_IDENTITY = "hash.identity"  # of runs; up to gitdist 0.5 ``_IDENTITY``
_NUM_DIGITS = 8  # of an identity, in the name of an experiment


class MlflowOutageError(StudyError):
    """MLflow's server does not answer now, but may later."""


def open_experiment(
    paths: StudyPaths, uri: str, identity: str, view: str | None = None
) -> tuple[MlflowClient, Experiment]:
    """Return a client of the store at ``uri``, and the study's experiment, which is created if missing.

    A tag of the experiment gets the ``view`` of the runs table, see ``runs_table``, unless it is None.
    In a database, the locations of a moved or copied results directory are first changed to this directory.
    """
    _configure_mlflow()
    file = database_file(uri)
    if file is not None:
        ensure_database(file, paths.artifacts)
        if is_own_database(paths, uri):
            relocate_artifacts(file, paths.artifacts)
    elif is_database(uri):
        _connect(uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = _StudyExperiment(client, uri, paths, identity).open()
    if view is not None:
        store_view(client, experiment, identity, view)
    directory = local_path(experiment.artifact_location) if is_database(uri) else None
    if directory is not None:  # fail now if artifacts cannot be written there
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    return client, experiment


@contextmanager
def opened_for_reading(paths: StudyPaths, uri: str) -> Iterator[tuple[str, bool]]:
    """Yield the URI of a store for a reader, and whether it is a temporary copy.

    In a database, locations are changed as ``open_experiment`` does. A SQLite file that cannot be written is copied,
    because MLflow's server writes to its store. ``paths`` may be of a results directory, without a study's name.
    """
    _configure_mlflow()
    reader_uri, file, own = uri, database_file(uri), is_own_database(paths, uri)
    with ExitStack() as stack:
        with mlflow_errors(uri):
            if file is not None and is_read_only(file):
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="gitdist-mlflow-"))
                file = copy_database(file, Path(directory))
                reader_uri = f"sqlite:///{file}"
            if file is not None and own:
                relocate_artifacts(file, paths.artifacts)
            elif is_database(uri) and paths.name and (identity := read_identity(paths)) is not None:
                if file is None:
                    _connect(uri)
                _StudyExperiment(MlflowClient(tracking_uri=reader_uri), reader_uri, paths, identity).find()
        yield reader_uri, reader_uri != uri


def find_table_link(paths: StudyPaths, uri: str, server: str, identity: str, view: str) -> str | None:
    """Return the address at ``server`` of a study's runs in the store at ``uri``; None if it has none of the study.

    The view is stored if the store lacks it, as that of a study begun with gitdist 0.5.
    """
    _configure_mlflow()
    with mlflow_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        experiment = _StudyExperiment(client, uri, paths, identity).find()
        if experiment is None:
            return None
        store_view(client, experiment, identity, view)
        return table_link(server, experiment.experiment_id, identity)


def find_table_links(uri: str, server: str) -> Mapping[str, str]:
    """Return the addresses at ``server`` of the runs of all studies in the store at ``uri``, by name of experiment."""
    with mlflow_errors(uri):
        return table_links(server, MlflowClient(tracking_uri=uri).search_experiments())


def is_database(uri: str) -> bool:
    """Return whether a store is a database, whose artifacts are files in the results directory."""
    return database_file(uri) is not None or mlflow_scheme(uri) in _DATABASE_SERVERS


def check_access(uri: str) -> None:
    """Check access to a store with a request that needs credentials; create nothing."""
    _configure_mlflow()
    if mlflow_scheme(uri) in _DATABASE_SERVERS:
        _connect(uri)  # MLflow would create its tables
    else:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def is_outage(uri: str, error: BaseException) -> bool:
    """Return whether a server does not answer now but may later; False for a mistake in ``uri``."""
    try:
        if mlflow_scheme(uri) not in ("http", "https") or not urlsplit(uri).hostname:
            return False
    except ValueError:  # not a URI
        return False
    # Errors of requests are OSErrors; those of a malformed URI are ValueErrors too.
    return any(isinstance(cause, OSError) and not isinstance(cause, ValueError) for cause in _cause_chain(error))


def explain(error: BaseException) -> str:
    """Return the cause of an error of MLflow in one line."""
    causes = list(_cause_chain(error))
    outside = any(isinstance(cause, OSError | sqlite3.Error) for cause in causes)
    return without_secrets(first_line(causes[-1] if outside else error))


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn the errors of MLflow into one line; errors of the study's files pass.

    Raises:
        MlflowOutageError: the server does not answer.
        StudyError: the store cannot be used.
    """
    try:
        yield
    except GitdistError:
        raise
    except Exception as error:  # MLflow passes on any error of its store
        address, cause = without_secrets(uri), explain(error)
        if is_outage(uri, error):
            raise MlflowOutageError(
                f"MLflow at {address} does not answer ({cause}); run the same command again when it is back"
            ) from error
        remedy = "" if database_file(uri) is None else "; if that file is damaged, move it away and sync each study"
        raise StudyError(
            f"the MLflow store {address} cannot be used ({cause}); set tracking.uri or MLFLOW_TRACKING_URI to another"
            f"{remedy}"
        ) from error


class _StudyExperiment:
    """Finds the experiment of one study in one store. The methods raise the errors of MLflow."""

    def __init__(self, client: MlflowClient, uri: str, paths: StudyPaths, identity: str) -> None:
        self._client, self._uri, self._paths = client, uri, paths
        self._identity, self._tag = identity, f"{_IDENTITY}.{identity}"

    def open(self) -> Experiment:
        """Return the experiment; create it if it is missing and restore it if it was deleted."""
        experiment = self.find() or self._create()
        number = experiment.experiment_id
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(number)
        if self._tag not in experiment.tags:
            self._client.set_experiment_tag(number, self._tag, self._paths.name)
        return self._client.get_experiment(number)

    def find(self) -> Experiment | None:
        """Return the experiment, deleted or not, with its locations in this results directory; None if missing."""
        experiment = self._find_by_identity()
        if experiment is None:
            experiment = self._client.get_experiment_by_name(self._paths.name)
            if experiment is None or self._belongs_to_another(experiment):
                return None
        former = self._former_location(experiment)
        if former is None:
            return experiment
        move_locations(self._uri, former, self._paths.artifacts / former.name)
        return self._client.get_experiment(experiment.experiment_id)

    def _find_by_identity(self) -> Experiment | None:
        query = f"tags.`{self._tag}` = '{self._paths.name}'"
        matches = self._client.search_experiments(ViewType.ALL, filter_string=query, order_by=["experiment_id ASC"])
        return min(matches, key=lambda experiment: experiment.lifecycle_stage == LifecycleStage.DELETED, default=None)

    def _create(self) -> Experiment:
        name = self._paths.name
        if self._client.get_experiment_by_name(name) is not None:
            name = f"{name}-{self._identity[:_NUM_DIGITS]}"
        location = (self._paths.artifacts / name).as_uri() if is_database(self._uri) else None
        tags = {
            **KIND_TAG,
            _STUDY: self._paths.name,
            self._tag: self._paths.name,
        }
        try:
            return self._client.get_experiment(self._client.create_experiment(name, location, tags))
        except MlflowException:  # another process was faster, or the answer to the first try was lost
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return experiment

    def _former_location(self, experiment: Experiment) -> Path | None:
        """Return the experiment's location if it is in another results directory, for a database elsewhere; else None.

        That is ROOT/mlartifacts/NAME with a name that ``_create`` gives; users have chosen all other locations.
        """
        path, root = local_path(experiment.artifact_location), self._paths.artifacts
        if path is None or not is_database(self._uri) or is_own_database(self._paths, self._uri):
            return None
        names = (self._paths.name, f"{self._paths.name}-{self._identity[:_NUM_DIGITS]}")
        return path if path.parent.name == root.name and path.parent != root and path.name in names else None

    def _belongs_to_another(self, experiment: Experiment) -> bool:
        """Return whether the experiment with this study's name belongs to a study of another results directory."""
        if self._former_location(experiment) is None:
            return False
        if any(name.startswith(f"{_IDENTITY}.") for name in experiment.tags):
            return True  # this study would be found by its own tag
        query = f"tags.`{_ROLE}` = 'study'"  # the runs of gitdist 0.5 in an experiment without such tags
        runs = self._client.search_runs([experiment.experiment_id], query, ViewType.ALL)
        identities = {run.data.tags.get(_RUN_IDENTITY, run.data.tags.get(_IDENTITY)) for run in runs}
        return not identities <= {self._identity}


def _configure_mlflow() -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the caller reports these errors


def _connect(uri: str) -> None:
    """Connect to a database and disconnect; MLflow would retry the first attempt for minutes."""
    create_engine(uri, poolclass=NullPool).connect().close()


def _cause_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and its causes, down to the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
