import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.exceptions import RayError

from gitdist.errors import StreamError
from gitdist.spec import OracleSpec, StreamSpec
from gitdist.store import Store
from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import DrawStream
from gitdist.stream.launch import StreamHandle
from gitdist.stream.router import RouterStats
from gitdist.stream.server import ServerConfig
from tests.disks import fill, small_disk
from tests.stream.streams import assert_same, connected, keys_of, running
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def oracle(directory: Path, **stream: int) -> ServerConfig:
    return ServerConfig(dataset=directory, generator=OracleSpec(), artifact=None, stream=StreamSpec(**stream))


def router_of(handle: StreamHandle) -> RouterStats:
    stats: RouterStats = ray.get(ray.get_actor(handle.router_name).stats.remote())
    return stats


def test_each_planned_block_is_made_once_and_ahead_of_its_request(digits_directory: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 9, size=1500)
    draws = np.bincount(labels, minlength=10)
    num_blocks = int((-(-draws // 20)).sum())
    with (
        running(oracle(digits_directory, block_size=20), 2) as handle,
        connected(handle) as first,
        connected(handle) as second,
    ):
        streams = [DrawStream(client, 10, 2) for client in (first, second)]
        for stream in streams:
            stream.plan(draws)
        until(lambda: router_of(handle).blocks == num_blocks)
        for stream in streams:
            stream.prefetch(np.unique(labels))
            for batch in np.split(labels, 15):
                stream.take(batch)
        router, servers = handle.stats()
    assert router.prefilled == router.blocks == num_blocks
    assert sum(server.done.images for server in servers) == 20 * num_blocks


def test_requests_come_first_and_the_plan_continues_afterwards(digits_directory: Path) -> None:
    plan, urgent = keys_of(range(10), range(4)), keys_of(range(3), range(50, 52))
    outstanding = []
    with running(oracle(digits_directory, block_size=1000), 2) as handle, connected(handle) as client:
        client.plan(plan)
        until(lambda: outstanding.append(sum(router_of(handle).outstanding)) or router_of(handle).blocks >= 6)
        client.get(urgent)
        assert router_of(handle).prefilled < len(plan)
        until(lambda: router_of(handle).blocks == len(plan) + len(urgent))
        assert router_of(handle).prefilled == len(plan)
    assert 0 < max(outstanding) <= 4


class Planner:
    """A trial's process that only plans."""

    def __init__(self, router: str, keys: list[BlockKey]) -> None:
        self._blocks = BlockClient(router)
        self._blocks.plan(keys)

    def pid(self) -> int:
        return os.getpid()


def test_servers_are_idle_once_a_client_with_a_plan_is_dead(digits_directory: Path) -> None:
    plan = keys_of(range(10), range(100))
    with running(oracle(digits_directory, block_size=1000)) as handle, connected(handle) as client:
        planner = ray.remote(num_cpus=0)(Planner).remote(handle.router_name, plan)
        until(lambda: router_of(handle).blocks >= 2)
        ray.kill(planner)
        with pytest.raises(RayError):  # once its process has ended
            ray.get(planner.pid.remote())
        until(lambda: router_of(handle).outstanding == (0,))
        made = router_of(handle).blocks
        assert made < len(plan)
        client.get(keys_of(range(1), range(200, 204)))
        assert handle.stats()[0].blocks == made + 4


def test_no_more_is_prefilled_than_the_window_holds_and_a_new_routers_is_filled_again(digits_directory: Path) -> None:
    plan = keys_of(range(1), range(8))
    small = oracle(digits_directory, block_size=500, window_mb=1)  # a block has 396,000 bytes, so 1 MiB keeps two
    with running(small) as handle, connected(handle) as client:
        assert not handle.warning
        client.plan(plan)
        until(lambda: router_of(handle).blocks == 2)
        with connected(handle) as other:
            other.get(plan[:2])
        router = handle.stats()[0]
        assert (router.prefilled, router.blocks, router.kept) == (2, 2, 2)
        os.kill(router.pid, signal.SIGKILL)
        until(lambda: (now := router_of(handle)).pid != router.pid and now.kept == 2)
        again, servers = handle.stats()
        assert again.pid != router.pid
        assert (again.prefilled, again.blocks, servers[0].done.blocks) == (2, 2, 4)


def test_a_failure_while_prefilling_is_not_the_answer_to_a_later_request(
    digits_directory: Path, tmp_path: Path
) -> None:
    good, bad = BlockKey(2, 0), BlockKey(77, 0)
    with small_disk(tmp_path / "disk", "1m") as disk:
        config = replace(oracle(digits_directory), store=Store(disk))
        with running(config) as handle, connected(handle) as client:
            filling = fill(disk)
            client.plan([good, bad])
            until(lambda: router_of(handle).blocks == 2)
            filling.unlink()
            assert_same(client.get([good]), [config.build_maker().make(good)])
            with pytest.raises(StreamError, match="block 0 of class 77"):
                client.get([bad])
            assert router_of(handle).blocks == router_of(handle).prefilled + 2 == 4


def test_no_planned_block_is_lost_with_a_server_or_the_router(digits_directory: Path) -> None:
    plan = keys_of(range(10), range(4))
    with (
        running(oracle(digits_directory, block_size=1000), 2) as handle,
        connected(handle) as client,
        connected(handle) as other,
    ):
        client.plan(plan)
        other.plan(plan[:20])
        until(lambda: router_of(handle).blocks >= 6)
        victim = handle.stats()[1][0].pid
        os.kill(victim, signal.SIGKILL)
        until(lambda: router_of(handle).blocks >= 20)
        router, servers = handle.stats()
        assert victim not in [server.pid for server in servers]
        assert router.prefilled == router.blocks
        os.kill(router.pid, signal.SIGKILL)
        until(lambda: router_of(handle).blocks == len(plan))
        until(lambda: router_of(handle).outstanding == (0, 0))
        after, servers = handle.stats()
        assert after.pid != router.pid
        assert (after.prefilled, after.kept) == (len(plan), len(plan))
        assert sum(server.done.images for server in servers) <= 2 * 1000 * len(plan)
        assert_same(client.get(plan[:1]), other.get(plan[:1]))
        until(lambda: router_of(handle).outstanding == (0, 0))
        assert router_of(handle).blocks == len(plan)
