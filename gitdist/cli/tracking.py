"""``gitdist sync | ui``: bring a study's MLflow store up to date with its files, and show it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console

from gitdist.address import without_secrets
from gitdist.cli.console import print_line
from gitdist.cli.studies import stored_study
from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.study.files.attribution import read_identity
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import LocalResults, Results
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.monitoring.mlflow.runs_table import experiments_link, table_view
from gitdist.study.monitoring.mlflow.store import find_table_link, find_table_links, opened_for_reading
from gitdist.study.monitoring.mlflow.uri import database_file, tracking_uri
from gitdist.study.status import file_notes
from gitdist.study.study import Study

_HOST = "127.0.0.1"
_END_S = 10.0  # for MLflow's server to end
_POLL_S = 0.05
_MAX_LINKS = 10  # of studies that are printed


def sync_stored_study(study: str, results: Results, console: Console) -> None:
    """Bring MLflow up to date with a study's files and print what it lacked."""
    from gitdist.study.study_record import sync_mlflow

    paths, spec = stored_study(study, results)
    paths.check_writable()
    with Study.open(paths, spec) as opened:
        owner = opened.owner()
        if owner is not None:
            raise StudyError(
                f"study '{spec.name}' is being run by pid {owner.pid} on {owner.host}, which keeps MLflow up to date "
                "itself; sync it when that driver has ended"
            )
        notes = file_notes(opened)
        uri, counts = sync_mlflow(opened, partial(print_line, console))
    for note in notes:
        print_line(console, note)
    print_line(
        console,
        f"MLflow at {without_secrets(uri)} has everything of study '{spec.name}': {counts.runs_created} runs created, "
        f"{counts.epochs_added} epochs added, {counts.statuses_fixed} statuses fixed",
    )


def serve_ui(study: str | None, results: Path, port: int, console: Console) -> None:
    """Serve the MLflow UI until interrupted, and print links to the runs; only those if it has a server already."""
    paths, spec = stored_study(study, LocalResults(results)) if study else (StudyPaths.at(results, ""), None)
    if spec is not None and Ledger.exists(paths, spec):
        with Study.open(paths, spec) as opened:
            notes = file_notes(opened)
        for note in notes:
            print_line(console, note)
    uri = tracking_uri(paths, spec.tracking.uri if spec else None)
    shown, file = without_secrets(uri), database_file(uri)
    if uri.startswith(("http://", "https://")):
        print_line(console, f"this store has its own server: {shown}")
        _print_links(paths, spec, uri, uri, console)
        return
    if file is not None and not file.exists():
        raise StudyError(f"no MLflow store at {file}; run a study first, or pass its directory with --results")
    _check_port(port)
    with opened_for_reading(paths, uri) as (served, is_copy):
        if is_copy:
            print_line(console, f"{file} is read-only: the UI shows a copy, and changes there are lost when it ends")
        print_line(console, f"MLflow UI for {shown} (Ctrl-C ends it); open:")
        _print_links(paths, spec, served, f"http://{_HOST}:{port}", console)
        try:
            exit_code = _serve(served, paths.artifacts, port)
        except KeyboardInterrupt:
            print_line(console, "MLflow UI ended")
            return
    if exit_code:
        raise StudyError(f"the MLflow server ended with exit code {exit_code}; see its message above")


def _print_links(paths: StudyPaths, spec: StudySpec | None, uri: str, server: str, console: Console) -> None:
    """Print the address of a study's runs; without a study, those of the newest studies and that of all."""
    identity = read_identity(paths) if spec else None
    link = find_table_link(paths, uri, server, identity, table_view(spec)) if spec and identity else None
    if link is not None:
        print_line(console, link)
        return
    links = find_table_links(uri, server)
    for name, each in list(links.items())[:_MAX_LINKS]:
        print_line(console, f"{name}: {each}")
    print_line(console, f"all experiments: {experiments_link(server)}")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise StudyError(
                f"port {port} on {_HOST} cannot be used ({error.strerror}); choose another with --port"
            ) from None


def _serve(uri: str, artifacts: Path, port: int) -> int:
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--registry-store-uri", uri, "--uvicorn-opts", "--log-level warning"]
    command += ["--artifacts-destination", str(artifacts)]  # else mlartifacts/ of the working directory
    # Workers of MLflow's jobs (GenAI evaluation) take memory, and answer Ctrl-C with tracebacks.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, "PYTHONWARNINGS": "ignore"}
    # The server would import modules of the working directory. In a session of its own, its processes end together.
    with subprocess.Popen(command, env=environment, cwd="/", start_new_session=True) as server:
        try:
            return server.wait()
        finally:
            _end_session(server)


def _end_session(leader: subprocess.Popen[bytes]) -> None:
    """End all processes of a process's session: ask them, and kill those that remain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _END_S
        with suppress(ProcessLookupError):  # there are none any more
            os.killpg(leader.pid, number)
            while time.monotonic() < deadline:
                leader.poll()
                os.killpg(leader.pid, 0)
                time.sleep(_POLL_S)
