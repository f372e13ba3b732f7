"""How many trials of a study run at once on the connected cluster: before its servers are placed, and after."""

from gitdist.study.cluster.connect import cluster_nodes, living_nodes
from gitdist.study.resources.stream import StreamResources
from gitdist.study.running_study import RunningStudy
from gitdist.study.scheduling.packing import Capacity, capacity_beside, check_fits_alone, find_capacity


def expect_capacity(running: RunningStudy, num_servers: int) -> Capacity:
    """Return and show what fits the cluster, before anything runs."""
    nodes, resources = cluster_nodes(), running.spec.resources
    capacity = find_capacity(nodes, resources, num_servers)
    if not num_servers and running.dataset.nuisance == "none":
        check_fits_alone(nodes, resources, "server", "transform the images that eKLD is measured on")
    running.display.say(capacity.note)
    return capacity


def measure_capacity(running: RunningStudy, resources: StreamResources, expected: Capacity) -> int:
    """Return how many trials run at once beside the running servers; show it if it is not as expected."""
    nodes, servers = living_nodes(), resources.server_nodes()
    if not servers:
        return expected.max_concurrent
    names = [node.offers.name for server in servers for node in nodes if node.id == server]
    capacity = capacity_beside([node.offers for node in nodes], running.spec.resources, names)
    if capacity != expected:
        running.display.say(capacity.note)
    return capacity.max_concurrent
