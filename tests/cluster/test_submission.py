"""A study as a job of a token-protected cluster of two nodes, submitted by Ray's own command."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_local import environment_of_own, exports, local

pytest.importorskip("aiohttp_cors", reason="the Jobs API comes with ray[default]")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

STUDY = """
name: submitted
data: {source: digits, nuisance: background, validation_per_class: 10, profile: {kind: step, largest: 60, factor: 0.2}}
generator: {kind: oracle}
trial: {network: resnet20, epochs: 2, switch_epoch: 1, lr_milestones: [1], batch_size: 32}
baseline: false
tracking: {models: false}
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


def submit(directory: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    ray = Path(sys.executable).parent / "ray"
    # The cluster's processes find `gitdist` on the PATH of the environment in which the cluster was started.
    command = [ray, "job", "submit", "--working-dir", directory, "--", "gitdist", "run", "study.yaml", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_submitted_study_finishes_and_its_failure_is_an_exit_code(tmp_path: Path, cluster: dict[str, str]) -> None:
    directory, results = tmp_path / "working", tmp_path / "results"
    directory.mkdir()
    (directory / "study.yaml").write_text(STUDY)
    done = submit(directory, cluster, "--results", str(results))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial 1 finished" in done.stdout
    assert json.loads((results / "submitted" / "summary.json").read_text())["trials"] == {"finished": 2}

    refused = submit(directory, cluster, "--results", str(results), "--set", "trial.epochs=3")
    assert refused.returncode == 1  # Ray's own, of every job that failed; gitdist's is in the message
    assert "trial.epochs must stay what study 'submitted' was started with" in refused.stdout
    assert "exit code 2" in refused.stdout


def test_without_the_token_nothing_is_submitted(tmp_path: Path, cluster: dict[str, str]) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    for changed in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "another"}):
        assert submit(tmp_path, cluster | changed, "--results", str(tmp_path / "results")).returncode != 0
    assert not (tmp_path / "results").exists()
