from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from gitdist.data.dataset import Dataset
from gitdist.errors import StreamError, StudyError
from gitdist.spec import OracleSpec, PluginSpec, Share, StreamSpec
from gitdist.stream.client import StreamTransform
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig
from tests.stream.holder import Holder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def oracle(directory: Path, **stream: int | str) -> ServerConfig:
    return ServerConfig(
        dataset=directory, generator=OracleSpec(), artifact=None, stream=StreamSpec.model_validate(stream)
    )


@pytest.fixture(scope="module")
def two_servers(digits_directory: Path, ray_cluster: None) -> Iterator[StreamHandle]:
    handle = launch_stream("two", oracle(digits_directory, window_mb=10**6), Share(cpu=0.5), 2)
    yield handle
    handle.shutdown()


def test_transforming_through_the_stream_equals_transforming_here(digits: Dataset, two_servers: StreamHandle) -> None:
    images, clean = digits.test.images[:100], digits.test.clean[:100]
    expected = oracle(digits.directory).build_maker().transform(images, clean, "preview", 1)
    np.testing.assert_array_equal(two_servers.transform(images, clean, "preview", 1), expected)
    connected = StreamTransform.connect(two_servers.router_name)
    np.testing.assert_array_equal(connected(images[64:], clean[64:], "preview", 1, first=64), expected[64:])
    with pytest.raises(StreamError, match="transform 100 images with the generator, but "):
        two_servers.transform(images, clean[:50], "preview")


def test_no_larger_window_is_kept_than_the_object_store_holds(two_servers: StreamHandle) -> None:
    size = ray.cluster_resources()["object_store_memory"]
    at_most = int(0.6 * size) // 2**20
    assert two_servers.warning.startswith(f"stream.window_mb must be {at_most} at most, ")
    assert "\n" not in two_servers.warning


def test_blocks_that_the_object_store_cannot_keep_are_warned_of(digits: Dataset) -> None:
    with launch_stream("large", oracle(digits.directory, block_size=65536, lookahead=1000), Share(cpu=0.5)) as handle:
        assert handle.warning.endswith("set stream.block_size to auto or to less than 65536")
    with launch_stream("fitting", oracle(digits.directory, block_size="auto"), Share(cpu=0.5)) as handle:
        assert handle.warning == "" and handle.signature.layout.block_size == 64


def test_running_stream_is_not_started_twice(digits_directory: Path, two_servers: StreamHandle) -> None:
    with pytest.raises(StreamError, match="gitdist-two-server-0"):
        launch_stream("two", oracle(digits_directory), Share(cpu=0.5))
    assert two_servers.stats()[0].blocks == 0


def test_failure_to_load_ends_the_launch_with_its_cause_and_leaves_no_actor(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="DataError: the prepared data set .* cannot be read"):
        launch_stream("broken", oracle(tmp_path), Share(cpu=0.5))
    with pytest.raises(ValueError):
        ray.get_actor("gitdist-broken-server-0")


def test_a_plugin_that_ends_its_server_is_named(digits: Dataset) -> None:
    plugin = PluginSpec(target="tests.generator.sample_plugins:Ends", options={"where": "ray"})
    images = digits.test.images[:4]
    with (
        launch_stream("ends", replace(oracle(digits.directory), generator=plugin), Share(cpu=0.5)) as handle,
        pytest.raises(StreamError, match="sample_plugins:Ends"),
    ):
        handle.transform(images, images, "preview")


def test_free_resources_for_servers_are_waited_for(digits_directory: Path) -> None:
    holder: Any = ray.remote(num_cpus=3)(Holder).remote()
    ray.get(holder.ready.remote())
    waits: list[float] = []

    def on_wait(waited_s: float) -> None:
        waits.append(waited_s)
        ray.kill(holder)

    with launch_stream("later", oracle(digits_directory), Share(cpu=3), on_wait=on_wait) as handle:
        assert len(waits) == 1 and waits[0] > 0
        assert handle.server_nodes() == [ray.get_runtime_context().get_node_id()]
        assert handle.stats()[0].blocks == 0


def test_a_wait_that_is_given_up_leaves_nothing(digits_directory: Path) -> None:
    def on_wait(waited_s: float) -> None:
        raise StudyError("taken over")

    with pytest.raises(StudyError, match="taken over"):
        launch_stream("never", oracle(digits_directory), Share(cpu=64), on_wait=on_wait)
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    assert "PENDING" not in states and "REMOVED" in states
