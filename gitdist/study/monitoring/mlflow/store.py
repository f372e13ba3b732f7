"""Opens a study's experiment in an MLflow store, and says in one line, without its password, what is wrong with it."""

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from gitdist.address import without_secrets
from gitdist.errors import StudyError, first_line
from gitdist.study.checks import kind_of_store
from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.database import copy_database, ensure_database, is_read_only
from gitdist.study.monitoring.mlflow.experiment import StudyExperiment
from gitdist.study.monitoring.mlflow.relocation import keep_inside, local_path
from gitdist.study.monitoring.mlflow.uri import database_file, is_own_database

# MLflow's own patience with a server that does not answer is minutes a call
_SWITCHES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_SERVERS = ("postgresql", "mysql", "mssql")  # of databases


def open_experiment(paths: StudyPaths, uri: str, identity: str) -> tuple[MlflowClient, Experiment]:
    """Return a client of the store at ``uri``, and the study's experiment there, found or created.

    In a database, locations that a moved or copied results directory brought along are changed to this directory first.

    Args:
        paths: the study's files.
        uri: the MLflow tracking URI.
        identity: the study's own, see ``settle_identity``.

    Raises whatever MLflow raises; ``is_outage`` and ``explain`` tell what it means.
    """
    _settle_mlflow()
    file = database_file(uri)
    if file is not None:
        ensure_database(file, paths.artefacts)
        if is_own_database(paths, uri):
            keep_inside(file, paths.artefacts)
    elif takes_files(uri):
        _connect(uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = StudyExperiment(client, uri, paths, identity, database=takes_files(uri)).open()
    if takes_files(uri):
        _probe(experiment.artifact_location)
    return client, experiment


@contextmanager
def opened_for_reading(paths: StudyPaths, uri: str) -> Iterator[tuple[str, bool]]:
    """Yield the address of a store for a reader, and whether that is a copy, which is removed afterwards.

    In a database, locations are changed as ``open_experiment`` does. A database in a file that cannot be written is
    copied, since MLflow's server writes to its store.

    Args:
        paths: a study's files, or those of a results directory without a study's name.
        uri: the MLflow tracking URI.

    Raises:
        StudyError: the store cannot be used.
    """
    _settle_mlflow()
    with ExitStack() as stack:
        shown, file, own = uri, database_file(uri), is_own_database(paths, uri)
        try:
            if file is not None and is_read_only(file):
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="gitdist-mlflow-"))
                file = copy_database(file, Path(directory))
                shown = f"sqlite:///{file}"
            if file is not None and own:
                keep_inside(file, paths.artefacts)
            elif takes_files(uri) and paths.name and paths.identity.exists():
                if file is None:
                    _connect(uri)
                identity = paths.identity.read_text().strip()
                StudyExperiment(MlflowClient(tracking_uri=shown), shown, paths, identity, database=True).find()
        except Exception as error:  # MLflow passes on whatever its store raises
            raise unusable(uri, error) from error
        yield shown, shown != uri


def takes_files(uri: str) -> bool:
    """Tell whether a store is a database, whose artifacts are files in the results directory."""
    return database_file(uri) is not None or kind_of_store(uri) in _SERVERS


def ask_server(uri: str) -> None:
    """Ask a store for what it tells its users alone; nothing is created there.

    A database is only connected to: MLflow would make its tables.

    Raises whatever MLflow raises; ``is_outage`` and ``explain`` tell what it means.
    """
    _settle_mlflow()
    if kind_of_store(uri) in _SERVERS:
        _connect(uri)
    else:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def is_outage(uri: str, error: BaseException) -> bool:
    """Tell whether ``error`` is a server's that does not answer now but may later, not a mistake in ``uri``."""
    try:
        if kind_of_store(uri) not in ("http", "https") or not urlsplit(uri).hostname:
            return False
    except ValueError:  # it is no address at all
        return False
    # requests' own errors are OSErrors; those of a malformed address are ValueErrors too
    return any(isinstance(cause, OSError) and not isinstance(cause, ValueError) for cause in _causes(error))


def explain(error: BaseException) -> str:
    """Return in one line what is behind an error of MLflow's."""
    causes = list(_causes(error))
    outside = any(isinstance(cause, OSError | sqlite3.Error) for cause in causes)
    return without_secrets(first_line(causes[-1] if outside else error))


def unusable(uri: str, error: BaseException) -> StudyError:
    """Return the error for the user whose store cannot be used."""
    return StudyError(
        f"the MLflow store {without_secrets(uri)} cannot be used ({explain(error)}); name another by tracking.uri or "
        "MLFLOW_TRACKING_URI"
    )


def _settle_mlflow() -> None:
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say is said by whoever calls


def _connect(uri: str) -> None:
    """Connect to a database and leave again; MLflow's own first try repeats for minutes."""
    create_engine(uri, poolclass=NullPool).connect().close()


def _probe(location: str) -> None:
    """Raise OSError where files cannot be written to ``location``, if it is on this machine."""
    place = local_path(location)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what it came from, down to the first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
