"""``gitdist ui``: links that open the runs of a study, and an end without leftovers."""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from gitdist.study.compatibility import store_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.sync import StudyRecord, sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.commands import environment, gitdist
from tests.study.monitoring.mlflow.conftest import DESCRIPTION


@pytest.fixture
def results(tmp_path, empty_store) -> Path:
    """Return a results directory with a study that has an experiment in MLflow."""
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    shutil.copy(empty_store, paths.tracking_db)
    paths.identity.write_text("one")
    store_spec(paths, DESCRIPTION.spec)
    sync_study(paths, tracking_uri(paths, None), StudyRecord(identity="one", description=DESCRIPTION, states={}))
    return tmp_path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for_server(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(("study", "number"), [(["study"], signal.SIGTERM), ([], signal.SIGHUP)])
def test_the_link_opens_the_runs_and_a_signal_ends_all_processes(results, study, number):
    port = free_port()
    command = gitdist("ui", *study, "--results", results, "--port", port)
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    wait_for_server(url, process)
    children = psutil.Process(process.pid).children(recursive=True)
    with urllib.request.urlopen(f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=study") as answer:
        experiment = json.load(answer)["experiment"]
    process.send_signal(number)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and len(children) >= 2
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert f"{url}/#/experiments/{experiment['experiment_id']}/runs?" in printed
    assert "viewStateShareKey=one" in printed
    assert (f"{url}/#/experiments?" in printed) == (not study)
    assert "mlflow.sharedViewState.one" in {tag["key"] for tag in experiment["tags"]}
