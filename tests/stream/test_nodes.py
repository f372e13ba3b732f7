"""Streams over the nodes of a cluster, one of which dies."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.internal_api import node_stats
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gitdist.errors import StreamError
from gitdist.spec import OracleSpec, Share, StreamSpec
from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import LocalBlocks
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


@pytest.fixture
def config(digits_directory: Path) -> ServerConfig:
    spec = StreamSpec(block_size=200)
    return ServerConfig(dataset=digits_directory, generator=OracleSpec(), artifact=None, stream=spec)


class Holder:
    """Takes its share of a node and does nothing; run as a Ray actor."""

    def ready(self) -> None:
        """Return once it has its share."""


class Reader:
    """Reads blocks on the node that it is placed on; run as a Ray actor."""

    def __init__(self, router: str) -> None:
        self._client = BlockClient(router)

    def read(self, keys: list[BlockKey]) -> int:
        """Return a sum over all pixels, so that all of them were there."""
        return sum(int(block.images.sum()) for block in self._client.get(keys))


def created(node: Any) -> tuple[int, int]:
    """Return the objects and bytes that ever came into a node's object store, made there or fetched."""
    address, port = node.node_ip_address, node.node_manager_port
    stats = node_stats(address, port, include_memory_info=False).store_stats
    return stats.cumulative_created_objects, stats.cumulative_created_bytes


def node_of(server: Any) -> str:
    node: str = ray.get(server.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
    return node


def test_a_block_is_copied_to_a_node_once_for_all_trials_there(cluster: Any, config: ServerConfig) -> None:
    keys = keys_of(range(10), range(4))
    with launch_stream("once", config, Share(cpu=1)) as handle:
        server = node_of(ray.get_actor("gitdist-once-server-0"))
        (far,) = (node for node in (cluster.head_node, *cluster.worker_nodes) if node.node_id != server)
        there = NodeAffinitySchedulingStrategy(far.node_id, soft=False)
        actor = ray.remote(num_cpus=0)(Reader).options(scheduling_strategy=there)
        readers = [actor.remote(handle.router_name) for _ in range(4)]
        ray.get([reader.read.remote([]) for reader in readers])  # all are there
        before, _ = created(far)
        sums = ray.get([reader.read.remote(keys) for reader in readers])
        after, num_bytes = created(far)
        assert len(set(sums)) == 1
        assert handle.stats()[1][0].done.images == len(keys) * 200
    assert after - before == len(keys)
    assert num_bytes >= len(keys) * handle.signature.layout.block_bytes


@pytest.mark.slow
def test_the_other_server_makes_the_blocks_of_one_whose_node_is_lost_until_there_is_a_node_again(
    cluster: Any, config: ServerConfig
) -> None:
    expected = LocalBlocks(config.build_maker())
    with launch_stream("lost", config, Share(cpu=1), num_servers=2) as handle, connected(handle) as client:
        nodes = [node_of(ray.get_actor(f"gitdist-lost-server-{index}")) for index in range(2)]
        assert len(set(nodes)) == 2  # spread
        keys = keys_of(range(10), range(3))
        assert_same(client.get(keys), expected.get(keys))

        worker = next(node for node in cluster.worker_nodes if node.node_id in nodes)
        later = keys_of(range(10), range(3, 30))
        client.request(later)
        cluster.remove_node(worker, allow_graceful=False)
        assert_same(client.get(later), expected.get(later))  # by the server that is left: the other one has no room

        cluster.add_node(num_cpus=1, include_dashboard=False)
        last = keys_of(range(10), range(30, 33))
        until(lambda: len({node_of(ray.get_actor(f"gitdist-lost-server-{index}")) for index in range(2)}) == 2)
        assert_same(client.get(last), expected.get(last))


@pytest.mark.slow
def test_a_stream_without_a_live_server_fails_after_the_deadline_and_one_with_a_slow_server_does_not(
    cluster: Any, config: ServerConfig
) -> None:
    here = NodeAffinitySchedulingStrategy(cluster.head_node.node_id, soft=False)
    holder = ray.remote(num_cpus=1)(Holder).options(scheduling_strategy=here).remote()  # as trials that wait
    ray.get(holder.ready.remote())
    with launch_stream("deserted", config, Share(cpu=1)) as handle:
        pid = handle.stats()[1][0].pid  # both processes have started
        client = BlockClient(handle.router_name, deadline_s=20.0)
        waiting = BlockClient(handle.router_name, deadline_s=20.0, autoscaling=True)
        try:
            os.kill(pid, signal.SIGSTOP)
            timer = threading.Timer(40.0, os.kill, [pid, signal.SIGCONT])
            timer.start()
            assert len(client.get(keys_of(range(10), range(1)))) == 10
            timer.join()

            (worker,) = cluster.worker_nodes
            cluster.remove_node(worker, allow_graceful=False)
            last = keys_of(range(10), range(1, 2))
            waiting.request(last)
            with pytest.raises(StreamError, match="none is alive, .* for 20 s; run") as caught:
                client.get(last)
            assert "\n" not in str(caught.value)
            cluster.add_node(num_cpus=1, include_dashboard=False)
            assert_same(waiting.get(last), LocalBlocks(config.build_maker()).get(last))
        finally:
            client.close()
            waiting.close()
