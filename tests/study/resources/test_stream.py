"""The record of what a study's servers made."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gitdist.data.dataset import prepare
from gitdist.spec import DataSpec, OracleSpec, StreamSpec
from gitdist.store import Store
from gitdist.stream.server import ServerConfig
from gitdist.study.files.layout import StudyPaths
from gitdist.study.resources import stream as stream_resources
from gitdist.study.resources.generator_training import TrainedGenerator
from gitdist.study.resources.stream import StreamResources
from tests.stream.streams import connected, keys_of, running


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_images_of_a_living_server_are_recorded_while_another_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_resources, "_FINAL_WAIT_S", 3.0)
    dataset = prepare(DataSpec(source="digits", nuisance="background"), Store(tmp_path / "store"))
    config = ServerConfig(
        dataset=dataset.directory, generator=OracleSpec(), artifact=None, stream=StreamSpec(block_size=20)
    )
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    study = SimpleNamespace(
        study=SimpleNamespace(paths=paths), started_s=time.perf_counter(), lease=SimpleNamespace(epoch=0)
    )
    with running(config, 2) as handle, connected(handle) as client:
        resources = StreamResources(study, TrainedGenerator(None, 0.0), handle)  # type: ignore[arg-type]
        client.get(keys_of(range(10), range(3)))
        living, silent = handle.stats()[1]
        assert living.done.images > 0
        os.kill(silent.pid, signal.SIGSTOP)  # as one whose node is lost
        try:
            resources.record_usage(final=True)
        finally:
            os.kill(silent.pid, signal.SIGCONT)
        (page,) = paths.usage.iterdir()
        assert json.loads(page.read_text())["generated_images"] == living.done.images
        resources.record_usage(final=True)
        assert json.loads(page.read_text())["generated_images"] == 600
