"""Owns the running stream and the eKLD image sets, and records usage."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from gitdist.data.dataset import Dataset
from gitdist.disk import disk_errors, write_atomic
from gitdist.spec import Share, StreamSpec, StudySpec
from gitdist.store import Store
from gitdist.stream.block_cache import BLOCKS
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig
from gitdist.stream.stats_poller import StatsPoller
from gitdist.study.files.attribution import ReusedPrefix
from gitdist.study.files.events import Observer, Outcome, Row
from gitdist.study.files.fencing import end_attempt
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.monitoring.display import Display
from gitdist.study.resources.generator import TrainedGenerator
from gitdist.study.worker.context import TrialContext
from gitdist.trial.evaluation import EkldRequest, ekld_set
from gitdist.trial.stages import KIND as PREFIX

_LAST_POLL_S = 10.0  # how long the last record of usage waits for the servers' answers


@dataclass(frozen=True, kw_only=True)
class OwnedStudy:
    """A study that this process owns since ``began`` (of ``time.perf_counter``), and all that belongs to it."""

    spec: StudySpec
    paths: StudyPaths
    store: Store
    dataset: Dataset
    ledger: Ledger
    lease: Lease
    identity: str
    display: Display
    began: float

    def tell_of_wait(self, what: str, waited_s: float) -> None:
        """Say that there has been no room for something for so long.

        Raises:
            StudyLockedError: the study is no longer this process's.
        """
        self.lease.check()
        self.display.say(f"waiting for room for {what}, since {waited_s:.0f} s")


@contextmanager
def supplied(study: OwnedStudy, generator: TrainedGenerator) -> Iterator["StreamResources"]:
    """Launch the study's stream, where trials share one, and end it."""
    if not study.spec.sharing.stream:
        yield StreamResources(study, generator, None)
        return
    with _launched(study, generator, study.spec.stream, study.spec.resources.servers) as stream:
        yield StreamResources(study, generator, stream)


@contextmanager
def _launched(
    study: OwnedStudy, generator: TrainedGenerator, spec: StreamSpec, num_servers: int
) -> Iterator[StreamHandle]:
    share = study.spec.resources.server
    # On a cluster the actors of a killed driver live on for a while: every term has names of its own.
    name = f"{study.spec.name}-{study.identity[:8]}-{study.lease.term}"
    store = study.store
    shared = store.shared if store.results is not None else None
    kept = Store(store.root, max_bytes=store.max_bytes, shared=shared, results=store.results) if spec.keep else None
    config = replace(_server_config(study, generator, share), stream=spec, store=kept)

    on_wait = partial(study.tell_of_wait, f"{num_servers} generator server(s)")
    with launch_stream(name, config, share, num_servers, on_wait=on_wait) as stream:
        if kept:
            study.store.use(BLOCKS, stream.signature.digest)
        if stream.warning:
            study.display.say(stream.warning)
        yield stream


def _server_config(study: OwnedStudy, generator: TrainedGenerator, share: Share) -> ServerConfig:
    return ServerConfig(
        dataset=study.dataset.directory,
        generator=study.spec.generator,
        artefact=generator.artefact,
        stream=study.spec.stream,
        device=share.device,
        origin=study.store if study.paths.mirror else None,
    )


class StreamResources(Observer):
    """A study's generator and stream, and what is made with them; an observer that records usage."""

    def __init__(self, study: OwnedStudy, generator: TrainedGenerator, stream: StreamHandle | None) -> None:
        """Own a stream that runs; None = each trial generates for itself."""
        self._study, self._generator, self._stream = study, generator, stream
        self._poller = self.stats_poller()
        self._held: set[TrialId] = set()  # those whose prefix this process holds
        self._is_store_full = False

    def server_nodes(self) -> list[str]:
        """Return Ray's id of the node of each server of the shared stream."""
        return self._stream.server_nodes() if self._stream else []

    def stats_poller(self) -> StatsPoller | None:
        """Return a poller of the stream that trials share; None if they share none."""
        return self._stream.stats_poller() if self._stream else None

    def context(self) -> TrialContext:
        """Return what all trials share, the eKLD images of the validation split among it."""
        study = self._study
        share = study.spec.resources.trial
        return TrialContext(
            spec=study.spec,
            term=study.lease.term,
            results=study.paths.results,
            dataset=study.dataset.directory,
            validation_ekld=self.ekld_place("validation"),
            router=self._stream.router_name if self._stream else None,
            generator=None if self._stream else _server_config(study, self._generator, share),
            mirror=study.paths.mirror,
        )

    def ekld_place(self, split: Literal["validation", "test"]) -> Path:
        """Return the directory of a split's eKLD images, made if they are not in the store."""
        study, evaluation = self._study, self._study.spec.evaluation
        final = split == "test"
        request = EkldRequest(
            split=split,
            images_per_class=evaluation.final_images_per_class if final else evaluation.epoch_images_per_class,
            transformations=evaluation.final_transformations if final else evaluation.epoch_transformations,
            seed=evaluation.seed,
        )
        if study.dataset.nuisance != "none":
            return ekld_set(study.dataset, request, study.store).directory
        with self._any_stream() as stream:
            request = replace(request, under="generator", key=stream.signature.draws)
            return ekld_set(study.dataset, request, study.store, stream.transform).directory

    def _any_stream(self) -> AbstractContextManager[StreamHandle]:
        """Lend the shared stream, else one of a single server that is launched for this."""
        if self._stream:
            return nullcontext(self._stream)
        alone = self._study.spec.stream.model_copy(update={"keep": False})
        return _launched(self._study, self._generator, alone, 1)

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """Hold the prefix that a trial took, for those that come later; its worker holds it no longer than it runs."""
        if trial not in self._held:
            prefix = ReusedPrefix.read(self._study.paths.trial(trial))
            if prefix:
                self._study.store.use(PREFIX, prefix.key)
                self._held.add(trial)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Record usage; it is all that a driver leaves that is killed later."""
        if outcome.state == "interrupted":
            end_attempt(self._study.paths.trial(trial), self._study.lease.term, self._study.paths.mirror)
        self.record_usage()

    def record_usage(self, *, is_last: bool = False) -> None:
        """Write what this driver's servers have done, as of their last answer; the last record waits for answers."""
        if self._poller:
            self._poller.poll(_LAST_POLL_S if is_last else 0.0)
        every = self._poller.done() if self._poller else []
        if not self._is_store_full and any(done.cache_rejects for done in every):
            self._is_store_full = True
            self._study.display.say(
                "stream.keep: the store is as large as store.max_gb allows, and running studies hold what is in it; "
                "more blocks are made but not kept: raise store.max_gb to keep them"
            )
        figures = {
            "wall_s": time.perf_counter() - self._study.began,
            "generated_images": sum(done.images for done in every),
            "generating_s": sum(done.generating_s for done in every),
            "generator_training_s": self._generator.training_s,
        }
        page = self._study.paths.accounts / f"{self._study.lease.term:04d}.json"
        with disk_errors(page):
            page.parent.mkdir(exist_ok=True)
        write_atomic(page, json.dumps(figures, indent=2).encode())
        self._study.paths.publish(page)
