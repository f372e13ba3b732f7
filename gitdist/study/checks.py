"""What a study needs beside its results where these are on an object store, which no other process can lock."""

import os
import re

from gitdist.address import without_secrets
from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.study.files.results import Mirror

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9.-]*)(\+[a-zA-Z0-9]+)?:")


def check_services(spec: StudySpec, results: object) -> None:
    """Refuse a study whose results go to an object store, but whose ledger or MLflow store would lie in a copy of them.

    Args:
        spec: the study.
        results: a directory, of which nothing is asked, or a ``Mirror``.

    Raises:
        SpecError: the ledger is a file, or MLflow is no server.
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
    """Refuse an MLflow store without a server: its file, or the artefacts of its database, would lie in a copy.

    Args:
        configured: the study's ``tracking.uri``; None = ``$MLFLOW_TRACKING_URI`` counts.
        results: where the study's results are.

    Raises:
        SpecError: it is no server of MLflow's, or none is named.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri or kind_of_store(uri) not in ("http", "https"):
        name = "tracking.uri" if configured else "MLFLOW_TRACKING_URI"
        told = f"{name} is '{without_secrets(uri)}'" if uri else f"neither tracking.uri nor {name} is set"
        raise SpecError(
            f"MLflow must be a server with results on an object store ({results}), but {told}; set tracking.uri: "
            "http://host:port"
        )


def kind_of_store(uri: str) -> str:
    """Return the kind of an MLflow store: the scheme without its driver, such as ``postgresql``; empty for a path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""
