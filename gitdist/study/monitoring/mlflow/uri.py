"""The URI of a study's MLflow store. This module does not import MLflow, which takes seconds."""

import os
from pathlib import Path

from gitdist.address import check_uri
from gitdist.disk import real_path
from gitdist.errors import SpecError
from gitdist.spec.paths import absolute_paths
from gitdist.study.checks import check_tracking
from gitdist.study.files.layout import StudyPaths

_SQLITE = "sqlite:///"


def tracking_uri(paths: StudyPaths, configured: str | None) -> str:
    """Return the spec's URI, else ``$MLFLOW_TRACKING_URI``, else the results directory's SQLite file."""
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{real_path(paths.tracking_db)}"
    uri = str(absolute_paths(uri, Path.cwd(), "tracking.uri"))
    try:
        check_uri(uri)
    except ValueError as error:
        raise SpecError(f"{'tracking.uri' if configured else 'MLFLOW_TRACKING_URI'} {error}; correct it") from None
    check_tracking(configured, paths.results)
    return uri


def is_own_database(paths: StudyPaths, uri: str) -> bool:
    """Return whether an MLflow store is the results directory's own SQLite file."""
    file = database_file(uri)
    return file is not None and real_path(file) == real_path(paths.tracking_db)


def database_file(uri: str) -> Path | None:
    """Return the file of an MLflow store in SQLite; None for any other store."""
    if not uri.startswith(_SQLITE) or uri.removeprefix(_SQLITE) in ("", ":memory:"):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])
