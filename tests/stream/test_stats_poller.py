import os
import signal
import time
from pathlib import Path

import pytest
import ray

from gitdist.spec import OracleSpec, StreamSpec
from gitdist.stream.blocks import MakerStats
from gitdist.stream.server import ServerConfig, ServerStats
from gitdist.stream.stats_poller import ServerThroughput, StatsPoller, StreamSnapshot, snapshot, throughput
from tests.stream.streams import connected, keys_of, running
from tests.waiting import until


def stats_of(up_s: float, images: int, generating_s: float, pid: int = 1) -> ServerStats:
    return ServerStats(pid=pid, up_s=up_s, done=MakerStats(images=images, generating_s=generating_s))


def test_throughput_is_the_work_between_two_answers_by_the_servers_own_clock() -> None:
    assert throughput(stats_of(10.0, 100, 5.0), stats_of(14.0, 300, 8.0)) == ServerThroughput(50.0, 0.75)
    assert throughput(None, stats_of(10.0, 100, 5.0)) == ServerThroughput(10.0, 0.5)
    assert throughput(stats_of(10.0, 100, 5.0), stats_of(2.0, 10, 1.0, pid=2)) == ServerThroughput(
        5.0, 0.5
    )  # another process
    assert throughput(stats_of(10.0, 100, 5.0), stats_of(2.0, 10, 1.0)) == ServerThroughput(
        5.0, 0.5
    )  # of the same number in a container
    assert throughput(None, stats_of(1.0, 10, 1.001)).utilisation == 1.0  # two clocks
    assert throughput(None, stats_of(0.0, 0, 0.0)) == ServerThroughput(0.0, 0.0)


def test_a_silent_server_counts_as_idle() -> None:
    assert snapshot([ServerThroughput(30.0, 1.0), None], 7, 9) == StreamSnapshot(
        images_per_s=30.0, utilisation=0.5, window_blocks=7, window_capacity=9, num_servers=2, num_answering=1
    )


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_poll_waits_for_no_actor_and_shows_servers_that_stop_and_return(digits_directory: Path) -> None:
    stream = StreamSpec.model_validate({"block_size": 20})
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artifact=None, stream=stream)
    with running(config, 2) as handle, connected(handle) as client:
        poller = StatsPoller(handle.router, handle.servers, silent_s=1.0)

        def poll() -> StreamSnapshot | None:
            started = time.monotonic()
            seen = poller.poll(0.2)
            assert time.monotonic() - started < 2.0
            return seen

        until(lambda: (seen := poll()) and seen.num_answering == 2)
        before = handle.stats()[1]
        client.get(keys_of(range(10), range(3)))
        until(lambda: (seen := poll()) and seen.window_blocks == 30)
        after = handle.stats()[1]
        assert sum(server.done.images for server in after) - sum(server.done.images for server in before) == 600

        stopped, killed = after[0].pid, after[1].pid
        os.kill(stopped, signal.SIGSTOP)  # it neither answers nor ends
        try:
            until(lambda: (seen := poll()) and seen.num_answering == 1)
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(lambda: (seen := poll()) and seen.num_answering == 2)
        os.kill(killed, signal.SIGKILL)
        known = len(poller.done())
        until(lambda: (seen := poll()) and seen.num_answering == 2 and len(poller.done()) > known)
        assert sum(done.images for done in poller.done()) == 600  # those of the process that was killed among them
        os.kill(handle.stats()[0].pid, signal.SIGKILL)  # a router that comes back keeps nothing
        until(lambda: (seen := poll()) and seen.window_blocks == 0)
        handle.shutdown()
        until(lambda: (seen := poll()) and (seen.num_answering, seen.images_per_s, seen.utilisation) == (0, 0.0, 0.0))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_server_with_a_long_queue_answers_polls(digits_directory: Path) -> None:
    stream = StreamSpec.model_validate({"block_size": 2000})
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artifact=None, stream=stream)
    with running(config) as handle, connected(handle) as client:
        client.request(keys_of(range(10), range(60)))
        poller = StatsPoller(handle.router, handle.servers)
        until(lambda: ray.get(handle.router.stats.remote()).outstanding[0] > 300)
        until(lambda: (seen := poller.poll(1.0)) and seen.num_answering == 1 and seen.images_per_s > 0)
        assert ray.get(handle.router.stats.remote()).outstanding[0] > 100
        assert 0 < sum(done.blocks for done in poller.done()) < 500
