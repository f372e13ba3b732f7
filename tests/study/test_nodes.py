"""A study on a cluster of nodes that die and come, with the workers there."""

import json
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.commands import call, gitdist
from tests.study.small_study import check_whole, stocked, wait_for_rows
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

TOTAL = 8
TRIAL = "ray::ImplicitFunc"  # Tune's actor
ON_GPUS = (
    f"search.total={TOTAL}",
    "resources.servers=2",
    "resources.server={cpu: 0.25, gpu: 0.25}",
    "resources.trial={cpu: 0.25, gpu: 0.5}",
    "resources.training={cpu: 1, gpu: 1}",
)
GPU_NODE = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}  # Ray counts the GPU; torch sees none


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray of one node with two CPUs and a GPU that is only counted."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=GPU_NODE)
    yield cluster
    cluster.shutdown()


def has_workers(node: Any, *titles: str) -> bool:
    """Whether a node runs Ray processes of all these titles, such as ``ray::GeneratorServer``."""
    shown = []
    for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
        try:
            shown.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return all(any(line.startswith(title) for line in shown) for title in titles)


def test_a_lost_node_costs_no_trial_and_changes_nothing(tmp_path, undisturbed, cluster):
    study = stocked(tmp_path, undisturbed)
    other = cluster.add_node(**GPU_NODE)
    driver = study.start("--address", cluster.address)
    wait_for_rows(study, "trials/0001")
    cluster.remove_node(other, allow_graceful=False)
    shown, errors = driver.communicate(timeout=600)
    assert driver.returncode == 0, shown + errors
    assert "trial rescheduled" in shown  # a trial's worker died there
    log = study.directory / "libraries.log"
    assert errors == "" and "raylet" not in shown and f"details: {log}" in shown  # Ray's own messages are there
    assert "node" in log.read_text()
    check_whole(study, 3)  # every trial finished
    assert study.rows() == undisturbed.rows()


def test_the_death_of_the_head_is_told_and_the_study_left_as_it_should_be_found(tmp_path, undisturbed, cluster):
    study = stocked(tmp_path, undisturbed)
    driver = study.start("--address", cluster.address)
    wait_for_rows(study)
    cluster.head_node.all_processes["gcs_server"][0].process.kill()
    shown, errors = driver.communicate(timeout=100)
    assert driver.returncode == 1, shown + errors
    assert "the head of the Ray cluster no longer answers" in shown
    resume = f"gitdist resume small --results {study.results} --address {cluster.address}"
    assert f"when the cluster runs again, resume with: {resume}" in errors
    assert "KILLED" in study.statuses() and "RUNNING" not in study.statuses()
    left = json.loads(call(gitdist("status", "small", "--results", str(study.results), "--json")).stdout)
    assert left["state"] == "interrupted" and left["owner"] is None
    assert study.run().returncode == 0  # on a Ray of this machine
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()


def test_a_study_goes_on_over_a_node_that_dies_and_one_that_comes(tmp_path, undisturbed, cluster):
    whole = stocked(tmp_path / "whole", undisturbed, *ON_GPUS[:1])
    done = whole.run()
    assert done.returncode == 0, done.stdout + done.stderr

    study = stocked(tmp_path / "broken", undisturbed, *ON_GPUS)
    first = cluster.add_node(**GPU_NODE)
    driver = study.start("--address", cluster.address)
    for node in (cluster.head_node, first):  # each has a server and trials
        until(lambda node=node: has_workers(node, "ray::GeneratorServer", TRIAL), limit_s=200)
    wait_for_rows(study, "trials/0001")
    cluster.remove_node(first, allow_graceful=False)
    second = cluster.add_node(**GPU_NODE)
    until(lambda: has_workers(second, TRIAL), limit_s=200)
    shown, errors = driver.communicate(timeout=600)
    assert driver.returncode == 0, shown + errors
    check_whole(study, TOTAL)
    assert study.rows() == whole.rows()
