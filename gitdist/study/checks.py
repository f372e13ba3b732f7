"""Checks of what a study needs from outside: classes of other packages, and services if files cannot be locked."""

import os
import re

from gitdist.address import without_secrets
from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.study.files.results import Results

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9.-]*)(\+[a-zA-Z0-9]+)?:")


def check_plugins(spec: StudySpec) -> None:
    """Import and build what a study names of other packages.

    Raises:
        SpecError: the generator, the sampler or the pruner cannot be imported or built.
        StudyError: as ``check_sampler`` and ``check_pruner``.
    """
    # Slow to import, and other checks need none of it.
    from gitdist.generator.kinds import needs_training
    from gitdist.study.ledger.pruning import check_pruner
    from gitdist.study.ledger.suggestion import check_sampler

    needs_training(spec.generator)
    check_sampler(spec.search)
    check_pruner(spec.search, num_steps=max(1, spec.trial.epochs - spec.trial.switch_epoch))


def check_services(spec: StudySpec, results: Results) -> None:
    """Refuse a study on an object store if its ledger or MLflow store is a file, which other processes could not see.

    Raises:
        SpecError: the ledger is a file, or MLflow is not a server.
    """
    if results.uri is None:
        return
    if "://" not in spec.ledger:
        raise SpecError(
            f"ledger must be a PostgreSQL server with results on an object store ({results}), but it is "
            f"'{spec.ledger}', a file; set ledger: postgresql://user@host/database"
        )
    check_tracking(spec.tracking.uri, results)


def check_tracking(configured: str | None, results: Results) -> None:
    """Refuse an MLflow store that is not a server, if the results are on an object store.

    Args:
        configured: the study's ``tracking.uri``; None = ``$MLFLOW_TRACKING_URI``.
        results: where the study's results are.
    """
    if results.uri is None:
        return
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri or mlflow_scheme(uri) not in ("http", "https"):
        name = "tracking.uri" if configured else "MLFLOW_TRACKING_URI"
        problem = f"{name} is '{without_secrets(uri)}'" if uri else f"neither tracking.uri nor {name} is set"
        raise SpecError(
            f"MLflow must be a server with results on an object store ({results}), but {problem}; set tracking.uri: "
            "http://host:port"
        )


def mlflow_scheme(uri: str) -> str:
    """Return the scheme of an MLflow URI without its driver, such as ``postgresql``; empty for a path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""
