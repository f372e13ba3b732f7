from pathlib import Path

import pytest

from gitdist.bench.readers import reading
from gitdist.data.dataset import prepare
from gitdist.spec import DataSpec, IdentitySpec, ProfileSpec, Share, StreamSpec
from gitdist.store import Store
from gitdist.stream.launch import launch_stream
from gitdist.stream.server import ServerConfig

pytestmark = pytest.mark.ray


def test_a_round_generates_what_one_reader_needs_however_many_read(ray_cluster: None, tmp_path: Path) -> None:
    profile = ProfileSpec(kind="exponential", largest=30, factor=0.2)
    dataset = prepare(DataSpec(source="digits", profile=profile), Store(tmp_path))
    stream = StreamSpec(block_size=16, lookahead=2)
    config = ServerConfig(
        dataset=dataset.directory, generator=IdentitySpec(), artefact=None, stream=stream, device="cpu"
    )
    classes, count = [7, 8, 9], 5
    with (
        launch_stream("bench-test", config, Share(cpu=0.5)) as handle,
        reading(handle, 2, dataset.num_classes, classes, stream, count) as readership,
    ):
        rounds = [readership.round(num_readers) for num_readers in (1, 2, 1)]
    wanted = len(classes) * count * stream.block_size
    assert [(each.generated, each.taken) for each in rounds] == [(wanted, wanted)] * 3
