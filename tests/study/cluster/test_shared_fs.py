"""A results directory that a node of the cluster does not share is refused before anything runs."""

from pathlib import Path

import pytest

from tests.cluster.apart import node_apart
from tests.study.small_study import SmallStudy

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


def test_results_that_a_node_does_not_see_are_refused_in_one_line(tmp_path):
    from ray.cluster_utils import Cluster

    disk = tmp_path / "disk"
    (disk / "results").mkdir(parents=True)
    study = SmallStudy(disk / "results", overrides=("generator={kind: identity}",))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        with node_apart(cluster, disk, Path(__file__).parents[3], "--num-cpus", "1"):
            refused = study.run("--address", cluster.address)
        alone = study.run("--address", cluster.address)
    finally:
        cluster.shutdown()
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stdout + refused.stderr
    assert "the results directory must be one that all nodes see" in refused.stderr
    assert f"{disk / 'results'} is another one on" in refused.stderr
    assert alone.returncode == 0, alone.stdout + alone.stderr
