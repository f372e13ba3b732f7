"""``gitdist ui``: MLflow's own server on a study's tracking store, on the loopback interface."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from gitdist.address import without_secrets
from gitdist.cli.studies import stored_study
from gitdist.errors import StudyError
from gitdist.study.compatibility import describe_edit
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import LocalResults
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.monitoring.mlflow.store import opened_for_reading
from gitdist.study.monitoring.mlflow.uri import database_file, tracking_uri
from gitdist.study.study import Study

_HOST = "127.0.0.1"


def serve_ui(study: str | None, results: Path, port: int, console: Console) -> None:
    """Serve the MLflow UI until interrupted; name its address where a server runs already.

    Args:
        study: name or file of a study whose own tracking store is meant; None = the results directory's.
        results: the results directory.
        port: port on 127.0.0.1.
        console: where its address is printed.

    Raises:
        StudyError: there is nothing to show, or the port is in use.
    """
    paths, spec = stored_study(study, LocalResults(results)) if study else (StudyPaths.at(results, ""), None)
    if spec is not None and Ledger.exists(paths, spec):
        with Study.open(paths, spec) as opened:
            edit = describe_edit(paths, opened.ledger.get_attr)
        if edit:
            console.print(edit, highlight=False, markup=False, soft_wrap=True)
    uri = tracking_uri(paths, spec.tracking.uri if spec else None)
    shown, file = without_secrets(uri), database_file(uri)
    if uri.startswith(("http://", "https://")):
        console.print(
            f"this store has a server of its own: open {shown}", highlight=False, markup=False, soft_wrap=True
        )
        return
    if file is not None and not file.exists():
        raise StudyError(f"no MLflow store at {file}; run a study first, or name its place with --results")
    _check_port(port)
    place = f"http://{_HOST}:{port}"
    with opened_for_reading(paths, uri) as (served, is_copy):
        if is_copy:
            line = f"{file} is read-only, so this is a copy of it: what is changed in the UI is lost when it ends"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        line = f"MLflow UI on {place} for {shown} (Ctrl-C ends it)"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        try:
            exit_code = _serve(served, paths.artefacts, port)
        except KeyboardInterrupt:
            console.print("MLflow UI ended")
            return
    if exit_code:
        raise StudyError(f"the MLflow server ended with exit code {exit_code}; its own message stands above")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise StudyError(
                f"port {port} on {_HOST} cannot be used ({error.strerror}); choose another with --port"
            ) from None


def _serve(uri: str, artefacts: Path, port: int) -> int:
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--registry-store-uri", uri, "--uvicorn-opts", "--log-level warning"]
    command += ["--artifacts-destination", str(artefacts)]  # else mlartifacts/ of the working directory
    # Workers of MLflow's jobs (GenAI evaluation) take memory, and answer Ctrl-C with tracebacks.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, env=environment, check=False).returncode
