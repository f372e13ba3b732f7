"""Whether the ledger's server, MLflow's server and the object store answer."""

from collections.abc import Callable
from typing import Any

from gitdist.address import without_secrets
from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.time_limit import NoAnswerError, answer_within
from gitdist.errors import GitdistError, first_line
from gitdist.store.file_tree import FileTree
from gitdist.study.checks import mlflow_scheme
from gitdist.study.files.results import results_tree
from gitdist.study.ledger.storage import check_server

_LIMIT_S = 15.0
_UNREACHABLE = "start the server, or correct tracking.uri or MLFLOW_TRACKING_URI (studies continue without it)"
_REFUSED = (
    "correct tracking.uri or MLFLOW_TRACKING_URI; a server's password belongs in MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD; a server reached by a name needs --allowed-hosts NAME:PORT"
)


def check_ledger(line: str) -> Finding:
    """Connect to the server in a study's ``ledger`` line; other ledgers are files in the results directory."""
    if line in ("sqlite", "journal"):
        return Finding("ledger", HERE, "ok", f"{line}, a file in the results directory")
    return _ask("ledger", line, lambda: check_server(line), "check `ledger:`, the server and the firewall")


def check_mlflow(uri: str) -> Finding:
    """Ask MLflow's server or its database, with this environment's credentials; a SQLite file is not opened."""
    shown = without_secrets(uri)
    if mlflow_scheme(uri) == "sqlite":
        return Finding("MLflow", HERE, "ok", f"{shown}, without a server")
    from gitdist.study.monitoring.mlflow.store import check_access, explain, is_outage  # imports MLflow, which is slow

    try:
        answer_within(_LIMIT_S, lambda: check_access(uri))
    except Exception as error:  # of MLflow or a database's driver, which have no common base
        unreachable = isinstance(error, NoAnswerError) or is_outage(uri, error)
        seen = f"{shown} {'does not answer' if unreachable else 'cannot be used'} ({explain(error)})"
        return Finding("MLflow", HERE, "problem", seen, _UNREACHABLE if unreachable else _REFUSED)
    return Finding("MLflow", HERE, "ok", f"{shown} answers")


def check_store(uri: str, token: str, results: bool = False) -> tuple[Finding, Callable[[], None]]:
    """Write, list and read a file in the store's shared place, or in results on an object store.

    Args:
        uri: the study's ``store.uri``, or its ``--results``.
        token: name of the file, which stays for nodes to see.
        results: whether it is the latter.

    Returns:
        The finding, and the function that deletes the file.
    """
    trees: list[FileTree] = []

    def use() -> None:
        tree = results_tree(uri) if results else FileTree.of_uri(uri)  # writes and deletes
        tree.write(token, token.encode())
        trees.append(tree)
        if tree.read(token) != token.encode() or token not in tree.files("", recursive=False):
            raise OSError("what was written there is not there")

    def clean() -> None:
        for tree in trees:
            answer_within(_LIMIT_S, lambda: tree.delete(token))  # noqa: B023

    check, option = ("results", "--results") if results else ("store", "store.uri")
    remedy = f"check {option}, its credentials (AWS_ACCESS_KEY_ID for example) and the permission to write there"
    return _ask(check, without_secrets(uri), use, remedy), clean


def _ask(check: str, shown: str, question: Callable[[], Any], remedy: str) -> Finding:
    try:
        answer_within(_LIMIT_S, question)
    except GitdistError as error:
        return Finding.of_error(check, HERE, error)
    except Exception as error:  # of sockets, libraries or object stores, which have no common base
        return Finding(check, HERE, "problem", f"{shown} does not answer ({first_line(error)})", remedy)
    return Finding(check, HERE, "ok", f"{shown} answers")
