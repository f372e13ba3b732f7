"""A study whose servers come to lie where they leave no room for a trial, though there is a place where they would."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.study.small_study import SmallStudy

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray of two nodes with GPUs that are only counted; the one with fewer has more CPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "num_gpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=16, num_gpus=1, include_dashboard=False)
    yield cluster
    cluster.shutdown()


def test_a_trial_that_would_wait_for_ever_is_refused(tmp_path, cluster):
    study = SmallStudy(tmp_path, overrides=("generator={kind: oracle}", "resources.trial={cpu: 16, gpu: 1}"))
    done = study.run("--address", cluster.address)
    assert "1 trial(s) at once, beside 1 generator server(s)" in done.stdout
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stdout + done.stderr
    assert "resources: a trial of 16 CPU and 1 GPU" in done.stderr and "that Ray has placed on" in done.stderr
