import os
import signal
import time
from pathlib import Path

import pytest
import ray

from gitdist.spec import OracleSpec, StreamSpec
from gitdist.stream.blocks import MakerStats
from gitdist.stream.lookout import Lookout
from gitdist.stream.pace import Pace, Sighting, pace_of, sight
from gitdist.stream.server import ServerConfig, ServerStats
from tests.stream.streams import connected, keys_of, running
from tests.waiting import until


def said(up_s: float, images: int, generating_s: float, pid: int = 1) -> ServerStats:
    return ServerStats(pid=pid, up_s=up_s, done=MakerStats(images=images, generating_s=generating_s))


def test_a_pace_is_what_was_done_between_two_answers_by_the_servers_own_clock() -> None:
    assert pace_of(said(10.0, 100, 5.0), said(14.0, 300, 8.0)) == Pace(50.0, 0.75)
    assert pace_of(None, said(10.0, 100, 5.0)) == Pace(10.0, 0.5)
    assert pace_of(said(10.0, 100, 5.0), said(2.0, 10, 1.0, pid=2)) == Pace(5.0, 0.5)  # another process
    assert pace_of(said(10.0, 100, 5.0), said(2.0, 10, 1.0)) == Pace(5.0, 0.5)  # of the same number in a container
    assert pace_of(None, said(1.0, 10, 1.001)).share == 1.0  # two clocks
    assert pace_of(None, said(0.0, 0, 0.0)) == Pace(0.0, 0.0)


def test_a_server_that_does_not_answer_is_taken_to_be_idle() -> None:
    assert sight([Pace(30.0, 1.0), None], 7, 9) == Sighting(
        images_per_s=30.0, utilisation=0.5, window_blocks=7, window_capacity=9, num_servers=2, num_answering=1
    )


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_lookout_waits_for_nobody_and_sees_servers_go_and_come_back(digits_directory: Path) -> None:
    stream = StreamSpec.model_validate({"block_size": 20})
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artefact=None, stream=stream)
    with running(config, 2) as handle, connected(handle) as client:
        lookout = Lookout(handle._router, handle._servers, silent_s=1.0)

        def look() -> Sighting | None:
            started = time.monotonic()
            seen = lookout.look(0.2)
            assert time.monotonic() - started < 2.0
            return seen

        until(lambda: (seen := look()) and seen.num_answering == 2)
        before = handle.stats()[1]
        client.get(keys_of(range(10), range(3)))
        until(lambda: (seen := look()) and seen.window_blocks == 30)
        after = handle.stats()[1]
        assert sum(server.done.images for server in after) - sum(server.done.images for server in before) == 600

        stopped, killed = after[0].pid, after[1].pid
        os.kill(stopped, signal.SIGSTOP)  # it neither answers nor ends
        try:
            until(lambda: (seen := look()) and seen.num_answering == 1)
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(lambda: (seen := look()) and seen.num_answering == 2)
        os.kill(killed, signal.SIGKILL)
        known = len(lookout.done())
        until(lambda: (seen := look()) and seen.num_answering == 2 and len(lookout.done()) > known)
        assert sum(done.images for done in lookout.done()) == 600  # those of the process that was killed among them
        os.kill(handle.stats()[0].pid, signal.SIGKILL)  # a router that comes back keeps nothing
        until(lambda: (seen := look()) and seen.window_blocks == 0)
        handle.shutdown()
        until(lambda: (seen := look()) and (seen.num_answering, seen.images_per_s, seen.utilisation) == (0, 0.0, 0.0))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_server_with_many_blocks_to_make_is_seen_to_make_them(digits_directory: Path) -> None:
    stream = StreamSpec.model_validate({"block_size": 2000})
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artefact=None, stream=stream)
    with running(config) as handle, connected(handle) as client:
        client.prefetch(keys_of(range(10), range(60)))
        lookout = Lookout(handle._router, handle._servers)
        until(lambda: ray.get(handle._router.stats.remote()).outstanding[0] > 300)
        until(lambda: (seen := lookout.look(1.0)) and seen.num_answering == 1 and seen.images_per_s > 0)
        assert ray.get(handle._router.stats.remote()).outstanding[0] > 100
        assert 0 < sum(done.blocks for done in lookout.done()) < 500
