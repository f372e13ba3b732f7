"""Which MLflow store a study writes to, and how its URI is shown to people."""

import os
import re

from gitdist.study.paths import StudyPaths
from gitdist.study.services import check_tracking

_CREDENTIALS = re.compile(r"//([^/@:\s]*):[^/\s]*@")


def tracking_uri(paths: StudyPaths, configured: str | None) -> str:
    """Return the MLflow store: the spec's, else ``$MLFLOW_TRACKING_URI``, else the results directory's SQLite file.

    Raises:
        SpecError: it is a file, but the results are on an object store.
    """
    if paths.mirror is not None:
        check_tracking(configured, paths.mirror)
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.tracking_db.resolve()}"


def without_password(text: str) -> str:
    """Return ``text`` with ``user:***@`` in the place of ``user:password@`` in every URI."""
    return _CREDENTIALS.sub(r"//\1:***@", text)
