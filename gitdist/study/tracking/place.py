"""Which MLflow store a study writes to, and how its URI is shown to people."""

import os
import re
from pathlib import Path

from gitdist.study.paths import StudyPaths
from gitdist.study.services import check_tracking

_SQLITE = "sqlite:///"
_CREDENTIALS = re.compile(r"//([^/@:\s]*):[^/\s]*@")


def tracking_uri(paths: StudyPaths, configured: str | None) -> str:
    """Return the MLflow store: the spec's, else ``$MLFLOW_TRACKING_URI``, else the results directory's SQLite file.

    Raises:
        SpecError: it is no server of MLflow's, but the results are on an object store.
    """
    if paths.mirror is not None:
        check_tracking(configured, paths.mirror)
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.tracking_db.resolve()}"


def database_file(uri: str) -> Path | None:
    """Return the file of an MLflow store in SQLite; None for any other store."""
    if not uri.startswith(_SQLITE) or uri.removeprefix(_SQLITE) in ("", ":memory:"):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])


def without_password(text: str) -> str:
    """Return ``text`` with ``user:***@`` in the place of ``user:password@`` in every URI."""
    return _CREDENTIALS.sub(r"//\1:***@", text)
