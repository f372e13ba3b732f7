"""A real MLflow server of the tests' own."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil


class Server:
    """``mlflow server`` on the loopback interface."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._directory}/mlflow.db"]
        command += ["--artifacts-destination", str(self._directory / "files"), "--serve-artifacts"]
        alone = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self._directory / "server.log", "a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **alone}, start_new_session=True
            )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._directory / "server.log").read_text())

    def hang(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    @property
    def hangs(self) -> bool:
        processes = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        return {process.status() for process in processes} == {psutil.STATUS_STOPPED}

    def epochs_of_trials(self) -> list[tuple[str, int]]:
        """Return run and step of all epochs in the server's database, without the server."""
        query = "SELECT name, step FROM metrics JOIN runs USING (run_uuid) WHERE key = 'val/ekld' ORDER BY name, step"
        with closing(sqlite3.connect(self._directory / "mlflow.db")) as database:
            return database.execute(query).fetchall()

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
