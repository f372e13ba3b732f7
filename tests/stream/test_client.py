import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.errors import StreamError
from gitdist.generator.kinds import obtain_artifact
from gitdist.spec import GeneratorSpec, MunitSpec, OracleSpec, StreamSpec
from gitdist.store import Store
from gitdist.stream.blocks import Block, BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import DrawStream, LocalBlocks
from gitdist.stream.launch import StreamHandle
from gitdist.stream.router import BlockRef, Router
from gitdist.stream.server import ServerConfig
from tests.disks import fill, small_disk
from tests.stream.streams import assert_same, connected, keys_of, running
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

_numbers = count()
Config = Callable[..., ServerConfig]


class Slow(NamedTuple):
    handle: StreamHandle
    config: ServerConfig


@pytest.fixture
def config(digits_directory: Path) -> Config:
    def make(generator: GeneratorSpec | None = None, artifact: Path | None = None, **stream: int) -> ServerConfig:
        spec = StreamSpec.model_validate({"block_size": 20, **stream})
        return ServerConfig(
            dataset=digits_directory, generator=generator or OracleSpec(), artifact=artifact, stream=spec
        )

    return make


@pytest.fixture(scope="module")
def slow(digits: Dataset, ray_cluster: None) -> Iterator[Slow]:
    """A stream of large blocks: 2000 draws take a server long enough to be met, and killed, in the middle of one."""
    spec = StreamSpec(block_size=2000)
    config = ServerConfig(dataset=digits.directory, generator=OracleSpec(), artifact=None, stream=spec)
    with running(config, 2) as handle:
        yield Slow(handle, config)


def fresh_keys(num_classes: int, num_indices: int) -> list[BlockKey]:
    """Blocks of the shared stream that no other test has asked for."""
    first = next(_numbers) * 100
    return keys_of(range(num_classes), range(first, first + num_indices))


def local(config: ServerConfig, keys: list[BlockKey]) -> list[Block]:
    return LocalBlocks(config.build_maker()).get(keys)


def test_blocks_of_two_servers_equal_local_ones_and_are_read_only_views(slow: Slow) -> None:
    keys = fresh_keys(10, 3)
    with connected(slow.handle) as client:
        blocks = client.get(keys)
        assert_same(blocks, local(slow.config, keys))
        assert not blocks[0].images.flags.writeable and not blocks[0].images.flags.owndata
        assert blocks[0].images.flags.c_contiguous
        assert all(server.done.blocks > 0 for server in slow.handle.stats()[1])


def test_munit_blocks_equal_local_ones(config: Config, digits: Dataset, tmp_path: Path) -> None:
    set_threads(1)
    spec = MunitSpec(dim=8, num_res=1, mlp_dim=16, discriminator_dim=8, discriminator_layers=2, steps=2)
    artifact = obtain_artifact(spec, digits, Store(tmp_path), lambda step: None, Compute.resolve())
    munit = config(spec, artifact)
    keys = keys_of(range(10), range(3))
    with running(munit, 2) as handle, connected(handle) as client:
        client.request(keys[::-1])
        assert_same(client.get(keys), local(munit, keys))


def test_two_clients_at_once_have_each_block_generated_once(config: Config) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 10, size=64) for _ in range(30)]
    taken: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def train(client: BlockClient, number: int) -> None:
        stream = DrawStream(client, 10, 2)
        taken[number] = [stream.take(labels) for labels in batches]

    oracle = config()
    with running(oracle, 2) as handle, connected(handle) as first, connected(handle) as second:
        threads = [threading.Thread(target=train, args=pair) for pair in ((first, 0), (second, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = np.bincount(np.concatenate(batches)) // 20 + 2  # two blocks ahead of the current one
        announced = [
            BlockKey(class_index, index) for class_index in range(10) for index in range(last[class_index] + 1)
        ]
        first.get(announced)
        router, servers = handle.stats()
    alone = DrawStream(LocalBlocks(oracle.build_maker()), 10, 2)
    for labels, first_batch, second_batch in zip(batches, taken[0], taken[1], strict=True):
        expected = alone.take(labels)
        np.testing.assert_array_equal(first_batch, expected)
        np.testing.assert_array_equal(second_batch, expected)
    assert router.blocks == sum(server.done.blocks for server in servers) == len(announced)


def test_client_behind_another_calls_the_router_once_in_many_blocks(config: Config) -> None:
    labels = np.repeat(np.arange(10), 20)
    calls = [0]
    with running(config()) as handle:
        for _ in range(2):
            with connected(handle) as client:
                stream = DrawStream(client, 10, 2)
                for _ in range(30):
                    stream.take(labels)
            calls.append(handle.stats()[0].calls)
        assert handle.stats()[0].blocks == 330
    first, second = np.diff(calls)
    assert first >= 10 and second <= 6  # 330 blocks each


def test_slow_trial_gets_equal_draws_from_blocks_made_again(config: Config) -> None:
    labels, taken = np.zeros(499, np.int64), []  # every batch needs the next block, and no batch ends with one
    small = config(window_mb=1, block_size=500)  # a block has 396,000 bytes, so 1 MiB keeps two
    with running(small) as handle:
        with connected(handle) as fast, connected(handle) as slow:
            for client in (fast, slow):
                stream = DrawStream(client, 10, 0)
                taken.append([stream.take(labels) for _ in range(8)])
        router, servers = handle.stats()
    np.testing.assert_array_equal(*taken)
    assert router.kept == 2
    assert servers[0].done.blocks == router.blocks == 16  # the last two were evicted before the slow trial came


def test_servers_share_a_hot_class_and_keep_their_classes_when_idle(slow: Slow) -> None:
    def made_by(*requests: list[BlockKey]) -> list[int]:
        before = [server.done.blocks for server in slow.handle.stats()[1]]
        for keys in requests:
            client.get(keys)
            until(lambda: slow.handle.stats()[0].outstanding == (0, 0))
        return [server.done.blocks - made for server, made in zip(slow.handle.stats()[1], before, strict=True)]

    with connected(slow.handle) as client:
        until(lambda: slow.handle.stats()[0].outstanding == (0, 0))
        assert made_by(fresh_keys(1, 6)) == [3, 3]
        zero, one, two = ([key] for key in fresh_keys(3, 1))
        assert made_by(zero, two) == [2, 0]
        assert made_by(one) == [0, 1]


def test_a_full_disk_reaches_the_waiting_trial_in_one_line(config: Config, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        keeping = replace(config(), store=Store(disk))
        fill(disk)
        with running(keeping) as handle, connected(handle) as client:
            with pytest.raises(
                StreamError, match="make block 0 of class 2 with the generator, but DiskError: cannot write"
            ) as caught:
                client.get([BlockKey(2, 0)])
            assert "\n" not in str(caught.value)


def test_killed_server_comes_back_and_the_same_bytes_arrive(slow: Slow) -> None:
    keys = fresh_keys(4, 10)
    with connected(slow.handle) as client:
        pids = [server.pid for server in slow.handle.stats()[1]]
        client.request(keys)
        client.get(keys[:1])
        os.kill(pids[0], signal.SIGKILL)
        router = ray.get(ray.get_actor(slow.handle.router_name).stats.remote())
        assert router.outstanding[0] > 0
        assert_same(client.get(keys), local(slow.config, keys))
        assert [server.pid for server in slow.handle.stats()[1]] != pids


def test_clients_recover_from_a_killed_router(slow: Slow) -> None:
    keys = fresh_keys(4, 6)
    expected = local(slow.config, keys)
    with connected(slow.handle) as client:
        pid = slow.handle.stats()[0].pid
        client.request(keys)
        assert_same(client.get(keys[:2]), expected[:2])
        os.kill(pid, signal.SIGKILL)
        assert_same(client.get(keys[2:]), expected[2:])
        with connected(slow.handle) as late:
            assert_same(late.get(keys), expected)
        assert slow.handle.stats()[0].pid != pid


def test_failed_generation_reaches_every_waiter_with_its_cause(slow: Slow) -> None:
    failures: list[StreamError] = []
    good, bad = fresh_keys(1, 1)[0], BlockKey(77, 0)

    def wait(client: BlockClient) -> None:
        with pytest.raises(StreamError, match="block 0 of class 77.*choose a profile") as caught:
            client.get([good, bad])
        failures.append(caught.value)

    with connected(slow.handle) as first, connected(slow.handle) as second:
        threads = [threading.Thread(target=wait, args=(client,)) for client in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert len(failures) == 2
        assert all(type(failure) is type(failure.__cause__) is StreamError for failure in failures)
        assert "\n" not in str(failures[0])
        assert len(first.get([good])) == 1


def test_closing_fails_the_waiting_thread_and_ends_the_prefetch_thread(slow: Slow) -> None:
    client, keys, failed = BlockClient(slow.handle.router_name), fresh_keys(10, 5), threading.Event()

    def wait() -> None:
        with pytest.raises(StreamError, match="this client is closed"):
            client.get(keys)
        failed.set()

    thread = threading.Thread(target=wait)
    thread.start()
    client.get(keys[:1])
    client.close()
    thread.join(timeout=60)
    assert failed.is_set()
    assert not [other for other in threading.enumerate() if other.name == "gitdist-prefetch"]
    with pytest.raises(StreamError, match="this client is closed"):
        client.get(keys[:1])


def test_waiting_time_is_measured(slow: Slow) -> None:
    with connected(slow.handle) as client:
        stream = DrawStream(client, 10, 0)
        stream.cursors = np.full(10, fresh_keys(1, 1)[0].index * 2000)
        stream.take(np.arange(10))
        waited = stream.waited_s
        assert waited > 0
        stream.take(np.arange(10))
        assert stream.waited_s == waited


def test_ended_stream_fails_those_who_wait(config: Config) -> None:
    with running(config(block_size=2000)) as handle, connected(handle) as client:
        keys = keys_of(range(10), range(20))
        client.request(keys)
        client.get(keys[:1])
        handle.shutdown()
        with pytest.raises(StreamError, match="the stream must"):
            client.get(keys)
        with pytest.raises(StreamError):
            client.get(keys[-1:])


def start_router(slow: Slow, kind: type[Router]) -> Any:
    servers = [slow.handle.router_name.replace("router", f"server-{index}") for index in range(2)]
    router = ray.remote(num_cpus=0)(kind).remote(servers, slow.handle.signature, 0)
    ray.get(router.stats.remote())  # its process has started
    return router


def test_the_deadline_begins_again_with_every_answer(slow: Slow) -> None:
    """As where a trial asks for its first block hours after it connected, and both calls are slow."""

    class SlowRouter(Router):
        def stats(self) -> Any:
            time.sleep(1.5)
            return super().stats()

        def refs(self, *arguments: Any) -> Any:
            time.sleep(1.5)
            return super().refs(*arguments)

    client = BlockClient(start_router(slow, SlowRouter), deadline_s=2.0)
    try:
        time.sleep(1.5)
        assert len(client.get(fresh_keys(1, 1))) == 1
    finally:
        client.close()


def test_the_deadline_ends_a_stream_whose_router_answers_but_whose_blocks_are_all_lost(slow: Slow) -> None:
    class Owner:
        def begin(self) -> Any:
            return [ray.remote(num_cpus=0)(lambda: time.sleep(3600)).remote()]

    class LosingRouter(Router):
        def refs(self, keys: Any, ranges: Any = ()) -> Any:
            return [BlockRef(key, reference, was_done=False) for key in keys]

    owner = ray.remote(num_cpus=0)(Owner).remote()
    (reference,) = ray.get(owner.begin.remote())
    ray.kill(owner)

    client = BlockClient(start_router(slow, LosingRouter), deadline_s=1.0)
    try:
        with pytest.raises(StreamError, match="deliver within 1 s"):
            client.get(fresh_keys(1, 1))
    finally:
        client.close()


def test_unknown_router_is_refused() -> None:
    with pytest.raises(StreamError, match="no router is named 'gitdist-none-router'"):
        BlockClient("gitdist-none-router")
