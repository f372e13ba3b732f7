"""Owns the running stream and the eKLD image sets of a study, and records the usage of its driver."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from gitdist.disk import disk_errors, write_atomic
from gitdist.spec import Share, StreamSpec
from gitdist.store import Store
from gitdist.stream.block_cache import BLOCKS
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig
from gitdist.stream.stats_poller import StatsPoller
from gitdist.study.files.attribution import ReusedPrefix
from gitdist.study.files.layout import TrialId
from gitdist.study.resources.generator_training import TrainedGenerator
from gitdist.study.running_study import RunningStudy
from gitdist.study.worker.job import TrialContext
from gitdist.trial.evaluation import EkldRequest, ekld_set
from gitdist.trial.stages import PREFIX

_FINAL_WAIT_S = 10.0  # for the servers' last statistics


@contextmanager
def launch_resources(running: RunningStudy, generator: TrainedGenerator) -> Iterator["StreamResources"]:
    """Launch the study's stream, unless each trial generates its own draws, and stop it at the end of the block."""
    if not running.spec.sharing.stream:
        yield StreamResources(running, generator, None)
        return
    with _launch(running, generator, running.spec.stream, running.spec.resources.servers) as stream:
        yield StreamResources(running, generator, stream)


@contextmanager
def _launch(
    running: RunningStudy, generator: TrainedGenerator, spec: StreamSpec, num_servers: int
) -> Iterator[StreamHandle]:
    share, store = running.spec.resources.server, running.store
    # On a cluster, the actors of a killed driver live on for a while, so actor names contain the lease epoch.
    identity = running.study.ledger.get_attr("identity")
    name = f"{running.spec.name}-{identity[:8]}-{running.lease.epoch}"
    shared = store.shared if store.results is not None else None
    cache = Store(store.root, max_bytes=store.max_bytes, shared=shared, results=store.results) if spec.keep else None
    config = replace(_server_config(running, generator, share), stream=spec, store=cache)
    on_wait = partial(running.report_wait, f"{num_servers} generator server(s)")

    def on_load(waited_s: float) -> None:
        running.lease.check()
        generator = running.spec.generator.described
        running.display.log(f"waiting for {num_servers} server(s) to load {generator}, since {waited_s:.0f} s")

    with launch_stream(name, config, share, num_servers, on_wait=on_wait, on_load=on_load) as stream:
        if cache:
            running.store.mark_used(BLOCKS, stream.signature.digest)
        if stream.warning:
            running.display.log(stream.warning)
        yield stream


def _server_config(running: RunningStudy, generator: TrainedGenerator, share: Share) -> ServerConfig:
    return ServerConfig(
        dataset=running.dataset.directory,
        generator=running.spec.generator,
        artifact=generator.artifact,
        stream=running.spec.stream,
        device=share.device,
        origin=running.store if running.study.paths.results.uri is not None else None,
    )


class StreamResources:
    """The generator, the stream and the eKLD images of a study."""

    def __init__(self, running: RunningStudy, generator: TrainedGenerator, stream: StreamHandle | None) -> None:
        """Wrap a running stream; None if each trial generates its own draws."""
        self._running, self._generator, self._stream = running, generator, stream
        self._poller = self.stats_poller()
        self._pinned: set[TrialId] = set()  # trials whose prefix this process has pinned
        self._reported_full_store = False

    def server_nodes(self) -> list[str]:
        """Return Ray's ID of the node of each server of the shared stream."""
        return self._stream.server_nodes() if self._stream else []

    def stats_poller(self) -> StatsPoller | None:
        """Return a new poller of the shared stream's statistics; None if trials share no stream."""
        return self._stream.stats_poller() if self._stream else None

    def context(self) -> TrialContext:
        """Return what all trials share; build the eKLD images of the validation split if they are missing."""
        running = self._running
        return TrialContext(
            spec=running.spec,
            lease_epoch=running.lease.epoch,
            results=running.study.paths.results,
            dataset=running.dataset.directory,
            validation_ekld=self.ekld_images("validation"),
            weights=running.weights,
            router=self._stream.router_name if self._stream else None,
            generator=(
                None if self._stream else _server_config(running, self._generator, running.spec.resources.trial)
            ),
        )

    def ekld_images(self, split: Literal["validation", "test"]) -> Path:
        """Return the directory of a split's eKLD images; build them if they are not in the store."""
        running, evaluation = self._running, self._running.spec.evaluation
        final = split == "test"
        request = EkldRequest(
            split=split,
            images_per_class=evaluation.final_images_per_class if final else evaluation.epoch_images_per_class,
            transformations=evaluation.final_transformations if final else evaluation.epoch_transformations,
            seed=evaluation.seed,
        )
        if running.dataset.nuisance != "none":
            return ekld_set(running.dataset, request, running.store).directory
        with self._stream_or_temporary() as stream:
            request = replace(request, under="generator", key=stream.signature.draws)
            return ekld_set(running.dataset, request, running.store, stream.transform).directory

    def pin_prefix(self, trial: TrialId) -> None:
        """Pin the prefix that a trial reused, for later trials; the trial's worker pins it only while it trains."""
        if trial not in self._pinned:
            prefix = ReusedPrefix.read(self._running.study.paths.trial(trial))
            if prefix:
                self._running.store.mark_used(PREFIX, prefix.key)
                self._pinned.add(trial)

    def record_usage(self, *, final: bool = False) -> None:
        """Write this driver's times and counts; if ``final``, wait for the servers' last statistics."""
        running = self._running
        if self._poller:
            self._poller.poll(_FINAL_WAIT_S if final else 0.0)
        servers = self._poller.done() if self._poller else []
        if not self._reported_full_store and any(server.cache_rejects for server in servers):
            self._reported_full_store = True
            running.display.log(
                "stream.keep: the store has reached store.max_gb, and running studies use all of its artifacts; new "
                "blocks are not stored; raise store.max_gb"
            )
        usage = {
            "wall_s": time.perf_counter() - running.started_s,
            "generated_images": sum(server.images for server in servers),
            "generating_s": sum(server.generating_s for server in servers),
            "generator_training_s": self._generator.training_s,
        }
        file = running.study.paths.usage / f"{running.lease.epoch:04d}.json"
        with disk_errors(file):
            file.parent.mkdir(exist_ok=True)
        write_atomic(file, json.dumps(usage, indent=2).encode())
        running.study.paths.push(file)

    def _stream_or_temporary(self) -> AbstractContextManager[StreamHandle]:
        """Return the shared stream, else launch one with a single server for the block."""
        if self._stream:
            return nullcontext(self._stream)
        uncached = self._running.spec.stream.model_copy(update={"keep": False})
        return _launch(self._running, self._generator, uncached, 1)
