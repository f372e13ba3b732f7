"""Which MLflow store a study writes to."""

import os

from gitdist.address import check_address
from gitdist.errors import SpecError
from gitdist.study.paths import StudyPaths
from gitdist.study.services import check_tracking


def tracking_uri(paths: StudyPaths, configured: str | None) -> str:
    """Return the MLflow store: the spec's, else ``$MLFLOW_TRACKING_URI``, else the results directory's SQLite file.

    Raises:
        SpecError: it is no address, or a file where the results are on an object store.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.tracking_db.resolve()}"
    try:
        check_address(uri)
    except ValueError as error:
        raise SpecError(f"{'tracking.uri' if configured else 'MLFLOW_TRACKING_URI'} {error}; correct it") from None
    if paths.mirror is not None:
        check_tracking(configured, paths.mirror)
    return uri
