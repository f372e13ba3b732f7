"""Whether the ledger's server, MLflow's server and the store's shared place answer."""

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from gitdist.address import without_secrets
from gitdist.doctor.exposure import check_remote_server
from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.patience import within
from gitdist.errors import GitdistError, first_line
from gitdist.store.place import Place
from gitdist.study.ledger.storage import check_server

_LIMIT_S = 15.0


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
    """Ask MLflow's server whether it is well; a store without a server is left alone.

    Args:
        uri: the tracking URI.
    """
    shown = without_secrets(uri)
    if urlsplit(uri).scheme not in ("http", "https"):
        return Finding("MLflow", HERE, "ok", f"{shown}, without a server")
    remedy = "start the server, or correct tracking.uri or MLFLOW_TRACKING_URI (a study goes on without it meanwhile)"
    return _probed("MLflow", shown, lambda: _ask_health(uri), remedy)


def check_tracking_exposure(uri: str) -> list[Finding]:
    """Warn of an MLflow server that is reached over a public network without encryption."""
    host = urlsplit(uri).hostname
    if urlsplit(uri).scheme not in ("http", "https") or host is None:
        return []
    try:
        entries = within(_LIMIT_S, lambda: socket.getaddrinfo(host, None))
    except Exception:  # no such host: told by ``check_tracking``
        return []
    return check_remote_server(uri, host, [str(entry[4][0]) for entry in entries])


def local_port(uri: str) -> int | None:
    """Return the port of an MLflow server that should run on this machine; None for any other."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    return parts.port or {"http": 80, "https": 443}[parts.scheme]


def check_store(uri: str, token: str) -> tuple[Finding, Callable[[], None]]:
    """Write into the store's shared place, list and read it.

    Args:
        uri: the study's ``store.uri``.
        token: name of the file that is left there for nodes to see.

    Returns:
        What was found, and the function that deletes the token.
    """
    places: list[Place] = []

    def use() -> None:
        place = Place.of_uri(uri)  # writes and deletes
        place.write(token, token.encode())
        places.append(place)
        if place.read(token) != token.encode() or token not in place.names(""):
            raise OSError("what was written there is not there")

    def clean() -> None:
        for place in places:
            within(_LIMIT_S, lambda: place.delete(token))  # noqa: B023

    shown = without_secrets(uri)
    remedy = "check store.uri, its credentials (AWS_ACCESS_KEY_ID and the like) and that files may be made there"
    return _probed("store", shown, use, remedy), clean


def _ask_health(uri: str) -> None:
    parts = urlsplit(uri)
    netloc = parts.netloc.rpartition("@")[2]
    address = f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(address, timeout=_LIMIT_S) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):  # it is there, and asks who comes
            raise


def _probed(check: str, shown: str, probe: Callable[[], Any], remedy: str) -> Finding:
    try:
        within(_LIMIT_S, probe)
    except GitdistError as error:
        return Finding.of_error(check, HERE, error)
    except Exception as error:  # of sockets, libraries or object stores, which have no common base
        reason = getattr(error, "reason", None)
        told = first_line(reason if isinstance(reason, BaseException) else error)
        return Finding(check, HERE, "problem", f"{shown} does not answer ({told})", remedy)
    return Finding(check, HERE, "ok", f"{shown} answers")
