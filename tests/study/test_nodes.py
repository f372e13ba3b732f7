"""A study on a cluster of two nodes of which one dies, with the workers there."""

import pytest

from tests.study.small_study import check_whole, stocked, wait_for_rows

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_lost_node_costs_no_trial_and_changes_nothing(tmp_path, undisturbed):
    from ray.cluster_utils import Cluster

    study = stocked(tmp_path, undisturbed)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=2, include_dashboard=False)
        driver = study.start("--address", cluster.address)
        wait_for_rows(study, "trials/0001")
        cluster.remove_node(other, allow_graceful=False)
        shown, errors = driver.communicate(timeout=600)
    finally:
        cluster.shutdown()
    assert driver.returncode == 0, shown + errors
    assert "is replaced" in shown  # a trial's worker died there
    assert "raylet" not in shown + errors  # Ray's own account is left out
    check_whole(study, 3)  # every trial finished
    assert study.rows() == undisturbed.rows()
