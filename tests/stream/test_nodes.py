"""Streams over the nodes of a cluster, one of which dies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from gitdist.spec import OracleSpec, Share, StreamSpec
from gitdist.stream.draws import LocalBlocks
from gitdist.stream.launch import launch_stream
from gitdist.stream.server import ServerConfig
from tests.stream.streams import assert_same, connected, keys_of
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray of two nodes of one CPU each, to which this process is connected."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1, include_dashboard=False)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def node_of(server: Any) -> str:
    node: str = ray.get(server.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
    return node


def test_a_server_whose_node_is_lost_is_done_without_until_there_is_room_again(
    cluster: Any, digits_directory: Path
) -> None:
    spec = StreamSpec(block_size=200)
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artefact=None, stream=spec)
    expected = LocalBlocks(config.build_maker())
    with launch_stream("lost", config, Share(cpu=1), num_servers=2) as handle, connected(handle) as client:
        nodes = [node_of(ray.get_actor(f"gitdist-lost-server-{index}")) for index in range(2)]
        assert len(set(nodes)) == 2  # spread
        keys = keys_of(range(10), range(3))
        assert_same(client.get(keys), expected.get(keys))

        worker = next(node for node in cluster.worker_nodes if node.node_id in nodes)
        later = keys_of(range(10), range(3, 30))
        client.prefetch(later)
        cluster.remove_node(worker, allow_graceful=False)
        assert_same(client.get(later), expected.get(later))  # by the server that is left: the other one has no room

        cluster.add_node(num_cpus=1, include_dashboard=False)
        last = keys_of(range(10), range(30, 33))
        until(lambda: len({node_of(ray.get_actor(f"gitdist-lost-server-{index}")) for index in range(2)}) == 2)
        assert_same(client.get(last), expected.get(last))
