"""``gitdist ui``: MLflow's own server on the results directory's store, on the loopback interface."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from gitdist.errors import StudyError
from gitdist.study.paths import StudyPaths
from gitdist.study.tracking import tracking_uri

_HOST = "127.0.0.1"


def serve_ui(results: Path, port: int, console: Console) -> None:
    """Serve the MLflow UI until interrupted.

    Args:
        results: the results directory.
        port: port on 127.0.0.1.
        console: where its address is printed.

    Raises:
        StudyError: there is nothing to show, or the port is in use.
    """
    uri = tracking_uri(StudyPaths(results, ""), None)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise StudyError(
            f"no MLflow store at {uri.removeprefix('sqlite:///')}; run a study first, or name its place with --results"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise StudyError(
                f"port {port} on {_HOST} cannot be used ({error.strerror}); choose another with --port"
            ) from None
    console.print(f"MLflow UI on http://{_HOST}:{port} for {uri} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--registry-store-uri",
        uri,
        "--host",
        _HOST,
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    environment = {**os.environ, "MLFLOW_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    try:
        subprocess.run(command, env=environment, check=False)
    except KeyboardInterrupt:
        console.print("MLflow UI ended")
