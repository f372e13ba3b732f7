"""What a study needs beside its results where these are on an object store, which no other process can lock."""

import os

from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.study.mirror import Mirror


def check_services(spec: StudySpec, results: object) -> None:
    """Refuse a study whose results go to an object store, but whose ledger or MLflow store would lie in a copy of them.

    Args:
        spec: the study.
        results: a directory, of which nothing is asked, or a ``Mirror``.

    Raises:
        SpecError: the ledger or the MLflow store is a file, or no MLflow store is named.
    """
    if not isinstance(results, Mirror):
        return
    if "://" not in spec.ledger:
        raise SpecError(
            f"ledger must be a PostgreSQL server with results on an object store ({results}), but it is "
            f"'{spec.ledger}', a file; set ledger: postgresql://user@host/database"
        )
    check_tracking(spec.tracking.uri, results)


def check_tracking(configured: str | None, results: Mirror) -> None:
    """Refuse an MLflow store that is a file, which would lie in a copy of the results.

    Args:
        configured: the study's ``tracking.uri``; None = ``$MLFLOW_TRACKING_URI`` counts.
        results: where the study's results are.

    Raises:
        SpecError: it is a file, or none is named.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri or uri.rpartition("://")[0].partition("+")[0] in ("", "file", "sqlite"):
        told = f"tracking.uri is '{uri}', a file" if uri else "neither tracking.uri nor MLFLOW_TRACKING_URI is set"
        raise SpecError(
            f"MLflow must be a server with results on an object store ({results}), but {told}; set tracking.uri: "
            "http://host:port"
        )
