"""A cluster of two nodes on this machine, of which the second is another world.

Its disk for results and the shared store is one of its own, in a mount namespace; its gitdist is an older one, and it
offers a GPU that is not there.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import gitdist
from tests.cluster.apart import node_apart

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
HEAD, OTHER = 0, 1


@dataclass
class Examined:
    """What ``gitdist doctor --json`` printed, by check and place."""

    code: int
    findings: list[dict]
    nodes: list[str]

    def at(self, check: str, node: int | None = None) -> dict:
        place = {None: ("here", "cluster")}.get(node) or (self.nodes[node],)
        found = [found for found in self.findings if found["check"] == check and found["place"] in place]
        assert len(found) == 1, (check, place, self.findings)
        return found[0]


def doctor(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    # Elsewhere than in the checkout: Ray gives its workers the driver's directory, and with it this gitdist.
    return subprocess.run(
        [sys.executable, "-m", "gitdist", "doctor", *map(str, arguments)],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A directory with a disk, a results directory on it, and an older gitdist."""
    place = tmp_path_factory.mktemp("doctor")
    for name in ("disk/results", "older/gitdist"):
        (place / name).mkdir(parents=True)
    (place / "older" / "gitdist" / "__init__.py").write_text('__version__ = "0.3.9"\n')
    return place


@pytest.fixture(scope="module")
def cluster(place) -> Iterator:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        with node_apart(cluster, place / "disk", place / "older", "--num-cpus", "0", "--num-gpus", "1"):
            yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def examined(cluster, place) -> Examined:
    study = place / "study.yaml"
    study.write_text("name: a\nresources: {trial: {gpu: 1}, server: {gpu: 1}}\nstore: {uri: disk/shared}\n")
    done = doctor(study, "--address", cluster.address, "--results", place / "disk" / "results", "--json", cwd=place)
    assert not done.stderr, done.stderr
    findings = json.loads(done.stdout)["findings"]
    gpus = {found["place"]: found["state"] for found in findings if found["check"] == "GPU"}
    nodes = sorted((name for name in gpus if name not in ("here", "cluster")), key=lambda name: gpus[name] == "problem")
    return Examined(done.returncode, findings, nodes)


def test_unshared_storage_on_two_nodes(examined, place):
    found = examined.at("sharing", OTHER)
    assert found["state"] == "problem" and "does not show" in found["seen"] and "NFS" in found["remedy"]
    assert examined.at("sharing", HEAD)["state"] == "ok"
    assert examined.at("results", OTHER)["state"] == "ok"  # it can be written: that alone says nothing
    assert examined.at("disk", OTHER)["state"] == "warning"
    assert not list((place / "disk" / "results").iterdir())  # nothing is left


def test_a_node_with_another_gitdist(examined):
    found = examined.at("versions", OTHER)
    assert found["state"] == "problem"
    assert found["seen"] == f"gitdist 0.3.9 (here {gitdist.__version__})"
    assert examined.at("versions", HEAD)["state"] == "ok"


def test_a_node_that_offers_a_gpu_that_torch_does_not_see(examined):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    found = examined.at("GPU", OTHER)
    assert found["state"] == "problem" and "offers 1 to Ray, visible to torch: none" in found["seen"]
    assert examined.at("GPU", HEAD)["state"] == "ok"


def test_a_study_that_does_not_fit(examined):
    found = examined.at("capacity")
    assert found["state"] == "problem" and found["place"] == "cluster" and "1 GPU" in found["seen"]


def test_the_shared_store_is_tried_from_every_node(examined, place):
    assert examined.at("store")["state"] == examined.at("store", HEAD)["state"] == "ok"
    assert examined.at("store", OTHER)["state"] == "problem"
    assert not list((place / "disk" / "shared").iterdir())


def test_results_on_an_object_store_are_tried_from_every_node(cluster, examined, place):
    uri = f"file://{place}/disk/results"
    done = doctor("--address", cluster.address, "--results", uri, "--json", cwd=place)
    elsewhere = Examined(done.returncode, json.loads(done.stdout)["findings"], examined.nodes)
    assert elsewhere.at("results")["state"] == elsewhere.at("results", HEAD)["state"] == "ok"
    found = elsewhere.at("results", OTHER)
    assert found["state"] == "problem" and uri in found["seen"] and "--results" in found["remedy"]
    assert not [found for found in elsewhere.findings if found["check"] in ("sharing", "disk")]


def test_problems_end_with_exit_code_2(examined):
    assert examined.code == 2
    assert all(found["remedy"] for found in examined.findings if found["state"] != "ok")


@contextmanager
def said_to_run(cluster, version: str) -> Iterator[None]:
    """Let a cluster say that it runs another version of Ray."""
    gcs, record = cluster.head_node.get_gcs_client(), (b"CLUSTER_METADATA", b"cluster")
    true = gcs.internal_kv_get(*record)
    gcs.internal_kv_put(record[0], json.dumps({**json.loads(true), "ray_version": version}).encode(), True, record[1])
    try:
        yield
    finally:
        gcs.internal_kv_put(record[0], true, True, record[1])


def test_a_cluster_of_another_ray_is_told_with_both_versions(cluster, place):
    import ray

    from gitdist.doctor.cluster import examine_cluster

    with said_to_run(cluster, "2.59.1"):
        (found,) = examine_cluster(cluster.address, (), None, (place, "none"), {})
    ray.shutdown()
    assert (found.check, found.state) == ("cluster", "problem")
    assert "runs Ray 2.59.1" in found.seen and f"this machine has Ray {ray.__version__}" in found.seen
    assert found.remedy.startswith("install the same versions")
