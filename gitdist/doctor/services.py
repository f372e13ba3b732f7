"""Whether the ledger's server, MLflow's server and the store's shared place answer."""

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from gitdist.address import without_secrets
from gitdist.doctor.exposure import check_remote_server
from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.patience import OutOfPatience, within
from gitdist.errors import GitdistError, first_line
from gitdist.store.file_tree import FileTree
from gitdist.study.checks import kind_of_store
from gitdist.study.files.results import results_tree
from gitdist.study.ledger.storage import check_server

_LIMIT_S = 15.0
_LOST = "start the server, or correct tracking.uri or MLFLOW_TRACKING_URI (a study goes on without it meanwhile)"
_REFUSED = (
    "correct tracking.uri or MLFLOW_TRACKING_URI; a server's password goes into MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, and one that is reached by a name wants --allowed-hosts NAME:PORT"
)


def check_ledger(line: str) -> Finding:
    """Connect to the ledger's server and leave again; the file of another kind lies in the results directory.

    Args:
        line: the study's ``ledger`` line.
    """
    if line in ("sqlite", "journal"):
        return Finding("ledger", HERE, "ok", f"{line}, a file in the results directory")
    remedy = "check the `ledger:` line, the server and the firewall between"
    return _probed("ledger", line, lambda: check_server(line), remedy)


def check_tracking(uri: str) -> Finding:
    """Ask MLflow's server, or its database's, what it refuses to strangers; a store in SQLite is left alone.

    Args:
        uri: the tracking URI.
    """
    shown = without_secrets(uri)
    if kind_of_store(uri) == "sqlite":
        return Finding("MLflow", HERE, "ok", f"{shown}, without a server")
    from gitdist.study.monitoring.mlflow.store import ask_server, explain, is_outage  # and MLflow, which takes its time

    try:
        within(_LIMIT_S, lambda: ask_server(uri))
    except Exception as error:  # of MLflow or a database's driver, which have no common base
        lost = isinstance(error, OutOfPatience) or is_outage(uri, error)
        seen = f"{shown} {'does not answer' if lost else 'cannot be used'} ({explain(error)})"
        return Finding("MLflow", HERE, "problem", seen, _LOST if lost else _REFUSED)
    return Finding("MLflow", HERE, "ok", f"{shown} answers")


def check_tracking_exposure(uri: str) -> list[Finding]:
    """Warn of an MLflow server that is reached over a public network without encryption."""
    try:
        host = urlsplit(uri).hostname
        if kind_of_store(uri) not in ("http", "https") or host is None:
            return []
        entries = within(_LIMIT_S, lambda: socket.getaddrinfo(host, None))
    except Exception:  # no such host, or no address: told by ``check_tracking``
        return []
    return check_remote_server(uri, host, [str(entry[4][0]) for entry in entries])


def local_port(uri: str) -> int | None:
    """Return the port of an MLflow server that should run on this machine; None for any other."""
    try:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            return None
        return parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError:  # no address: told by ``check_tracking``
        return None


def check_store(uri: str, token: str, results: bool = False) -> tuple[Finding, Callable[[], None]]:
    """Write into the store's shared place, or into results on an object store, list and read it.

    Args:
        uri: the study's ``store.uri``, or its ``--results``.
        token: name of the file that is left there for nodes to see.
        results: whether it is the latter.

    Returns:
        What was found, and the function that deletes the token.
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
            within(_LIMIT_S, lambda: tree.delete(token))  # noqa: B023

    shown = without_secrets(uri)
    named = "--results" if results else "store.uri"
    remedy = f"check {named}, its credentials (AWS_ACCESS_KEY_ID and the like) and that files may be made there"
    return _probed("results" if results else "store", shown, use, remedy), clean


def _probed(check: str, shown: str, probe: Callable[[], Any], remedy: str) -> Finding:
    try:
        within(_LIMIT_S, probe)
    except GitdistError as error:
        return Finding.of_error(check, HERE, error)
    except Exception as error:  # of sockets, libraries or object stores, which have no common base
        return Finding(check, HERE, "problem", f"{shown} does not answer ({first_line(error)})", remedy)
    return Finding(check, HERE, "ok", f"{shown} answers")
