"""A study as a job of a token-protected cluster of two nodes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_local import environment_of_own, exports, local
from tests.tunnel import tunnel_to

pytest.importorskip("aiohttp_cors", reason="the Jobs API comes with ray[default]")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

STUDY = """
name: submitted
data: {source: digits, nuisance: background, validation_per_class: 10, profile: {kind: step, largest: 60, factor: 0.2}}
generator: {kind: oracle}
trial: {network: resnet20, epochs: 2, switch_epoch: 1, lr_milestones: [1], batch_size: 32}
baseline: false
search: {total: 2, space: {fraction: {float: [0.2, 0.8]}}}
evaluation: {every: 2, final_transformations: 5, epoch_transformations: 5}
resources: {server: {cpu: 0.5}, trial: {cpu: 0.5}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which two nodes behind a token can be reached."""
    with environment_of_own() as environment:
        started = local(environment, "start", "--cpus", "1")
        assert started.returncode == 0, started.stderr
        yield environment | exports(started.stdout)


FOLLOW = """
import sys
from gitdist.study.submission import follow_job
def write(text):
    print(text, end="", flush=True)
sys.exit(follow_job("study", sys.argv[2:], "/results", sys.argv[1], write))
"""
JOB = """
import sys, time
from pathlib import Path
for number in range(1000):
    print(f"line {number}", flush=True)
    time.sleep(0.2)
    if Path(sys.argv[1]).exists():
        sys.exit(3)
"""


def submit(directory: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "study.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "gitdist", "run", "study.yaml", "--submit", *options]
    # The cluster's processes have the path to gitdist of the environment that it was started in.
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def test_a_submitted_study_ends_and_its_log_and_exit_code_come_here(tmp_path: Path, cluster: dict[str, str]) -> None:
    here, results = tmp_path / "here", tmp_path / "results"
    here.mkdir()
    done = submit(here, cluster, "--results", str(results))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted" in done.stdout and "trial 1 finished" in done.stdout
    assert json.loads((results / "submitted" / "summary.json").read_text())["trials"] == {"finished": 2}
    assert not (here / "results").exists()

    refused = submit(here, cluster, "--results", str(results), "--set", "trial.epochs=3")
    assert refused.returncode == 2
    assert "trial.epochs must stay what study 'submitted' was started with" in refused.stdout


def test_a_log_that_breaks_off_is_followed_on_and_the_job_by_its_own_command_alone(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    elsewhere = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9", "RAY_ADDRESS": "127.0.0.1:9"}  # nothing listens there
    (tmp_path / "here").mkdir()
    command = ["python", "-c", JOB, str(tmp_path / "end")]

    def follow(*command: str) -> subprocess.Popen[str]:
        whole = [sys.executable, "-c", FOLLOW, tunnel.address, *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(whole, cwd=tmp_path / "here", env=cluster | elsewhere, text=True, **pipes)

    with tunnel_to(int(cluster["RAY_API_SERVER_ADDRESS"].rpartition(":")[2])) as tunnel:
        first = follow(*command)
        told = wait_for_line(first, "submitted to")[-1]
        begun = wait_for_line(first, "line 3")
        tunnel.tear()
        job, stop = told.split()[1], f"ray job stop {told.split()[1]} --address {tunnel.address}"
        assert f"submitted to {tunnel.address};" in told and told.endswith(f"Stop it by: {stop}\n")
        for other in ([*command, "--take-over"], [*command, "more"]):
            shown, errors = follow(*other).communicate()
            assert shown == "" and "StudyError: a job under way is followed by the very command" in errors
            assert f"{job} runs study 'study' by: python -c" in errors
            assert errors.endswith(f"stop it first by: {stop}\n")
        again = follow(*command)
        told = wait_for_line(again, "following it")[-1]
        (tmp_path / "end").touch()
        rest, errors = end_of(first)
        log, other_errors = end_of(again)
    assert first.returncode == again.returncode == 3, errors + other_errors
    assert told.startswith(f"job {job} of this study is under way at {tunnel.address};")
    assert "".join(begun) + rest == log
    numbers = [line for line in log.splitlines() if line.startswith("line ")]
    assert numbers == [f"line {number}" for number in range(len(numbers))]


def end_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The rest of a process's output and errors; ``communicate`` leaves out what was read ahead with a line."""
    assert process.stdout and process.stderr
    with process:
        return process.stdout.read(), process.stderr.read()


def wait_for_line(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while words not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], f"'{words}' does not come: {process.communicate()[1]}"
    return lines


def test_without_the_token_nothing_is_submitted(tmp_path: Path, cluster: dict[str, str]) -> None:
    for changed in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "another"}):
        refused = submit(tmp_path, cluster | changed, "--results", str(tmp_path / "results"))
        assert refused.returncode == 2 and refused.stdout == ""
        assert "asks for its token" in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_results_that_would_go_with_the_job_are_refused(tmp_path: Path) -> None:
    refused = submit(tmp_path, dict(os.environ))
    assert refused.returncode == 2
    assert "--results must be an absolute path on storage that all nodes see" in refused.stderr
