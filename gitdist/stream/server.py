"""The Ray actor that generates: one process with the generator, the training images and their content codes.

    router -- make(key) ---> queue of this actor --> BlockCache, else BlockMaker --> Block in the node's object store
    driver -- transform() -> queue of this actor --> BlockMaker -------------------> images
    poller -- stats() -----> beside the queue    --> what has been done

The actor answers one call at a time, in order of arrival; only ``stats`` runs beside the queue. It waits for nobody:
callers hold a reference and wait for that. An exception travels in the reference to everyone who holds it. Ray restarts
a killed process, perhaps on another node, and repeats the calls that it had not answered. A call names the digest of
the stream's blocks, so a server on a node that would make different ones refuses.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, limit_to_share
from gitdist.errors import StreamError
from gitdist.generator.kinds import draw_settings, load_generator, weights_digest
from gitdist.spec import GeneratorSpec, Share, StreamSpec
from gitdist.store import Store, content_key
from gitdist.store.shared import shared_tree
from gitdist.stream.block_cache import BLOCK_FORMAT, BLOCKS, BlockCache
from gitdist.stream.blocks import (
    ENCODE_BATCH,
    Block,
    BlockKey,
    BlockMaker,
    MakerStats,
    StreamSignature,
    resolve_block_size,
)

STATS_GROUP = "stats"  # the concurrency group of ``stats``, which answers while blocks are made


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """All that a server needs to start, on any node."""

    dataset: Path  # directory of the prepared data set
    generator: GeneratorSpec
    artifact: Path | None  # directory of the generator's weights; None if nothing is trained
    stream: StreamSpec
    device: str | None = None  # None = a GPU if one is visible
    store: Store | None = None  # where blocks are kept on disk; None = they are not kept
    origin: Store | None = None  # of both directories, if this node may have them under another path or not yet

    def resolve_locally(self) -> "ServerConfig":
        """Return the config with the directories' paths on this node, fetched from ``origin`` if missing."""
        if self.origin is None:
            return self
        artifact = self.artifact and self.origin.resolve_locally(self.artifact)
        return replace(self, dataset=self.origin.resolve_locally(self.dataset), artifact=artifact, origin=None)

    @property
    def compute(self) -> Compute:
        """Device and precision of this process."""
        return Compute.resolve(self.stream.precision, self.device)

    def build_maker(self) -> BlockMaker:
        """Load data set and generator and return the maker of the stream's blocks."""
        local = self.resolve_locally()
        dataset = Dataset.open(local.dataset)
        size, chunk = resolve_block_size(self.stream, dataset)
        batch = size if self.stream.compile else None
        generator = load_generator(self.generator, dataset, local.artifact, self.compute, batch)
        return BlockMaker(generator, dataset.train, self.stream.seed, size, chunk_size=chunk)


@dataclass(frozen=True, kw_only=True)
class ServerStats:
    """A server's process, and what it has done since it started."""

    pid: int
    up_s: float  # seconds since it started
    done: MakerStats


class GeneratorServer:
    """Generates blocks and transforms images; run as a Ray actor.

    The first call other than ``stats`` loads data set and generator, so that a failure to load reaches a caller.
    """

    def __init__(self, config: ServerConfig, share: Share) -> None:
        """Limit the process to its share of the node."""
        self._started = time.monotonic()
        limit_to_share(share.cpu, share.num_gpus)
        self._received = config
        self._done = MakerStats()

    @cached_property
    def _config(self) -> ServerConfig:
        return self._received.resolve_locally()

    @cached_property
    def _maker(self) -> BlockMaker:
        maker = self._config.build_maker()
        self._done = maker.stats
        return maker

    @cached_property
    def _signature(self) -> StreamSignature:
        config, layout = self._config, self._maker.layout
        stream = config.stream.model_copy(update={"block_size": layout.block_size})
        draws = draw_spec(config.generator, config.artifact, stream, config.compute.name)
        fingerprint = Dataset.open(config.dataset).fingerprint
        digest = stream_digest(fingerprint, layout.block_size, draws, self._maker.chunk_size)
        return StreamSignature(layout=layout, draws=draws, digest=digest)

    @cached_property
    def _cache(self) -> BlockCache | None:
        store = self._config.store
        if store is None:
            return None
        shared = None
        if store.results and store.shared:
            shared = shared_tree(store.shared, of_results=True, waits="always")
        return BlockCache(store.root / BLOCKS / self._signature.digest, self._maker.layout, store.free_up, shared)

    def signature(self) -> StreamSignature:
        """Load, and return what identifies the blocks that this server makes."""
        return self._signature

    def make(self, key: BlockKey, digest: str) -> Block:
        """Return one block, from disk or made, with ballast if it is small; ``digest`` is the stream's.

        Raises:
            DiskError: the block is to be kept, and the disk cannot be read or written.
            StreamError: this server would make a different block, or the class has no training image.
        """
        self._check(digest)
        maker, cache = self._maker, self._cache
        block = cache.load(key) if cache else None
        if block is not None:
            maker.stats.cache_hits += 1
        else:
            block = maker.make(key)
            if cache and not cache.save(key, block):
                maker.stats.cache_rejects += 1
        ballast = maker.layout.ballast_bytes
        return replace(block, ballast=np.zeros(ballast, np.uint8)) if ballast else block

    def transform(
        self, images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int, first: int, digest: str
    ) -> NDArray[np.uint8]:
        """Return one fresh draw for each of the given images; see ``BlockMaker.transform``, and ``make``."""
        self._check(digest)
        return self._maker.transform(images, clean, name, index, first)

    def stats(self) -> ServerStats:
        """Return what this server has done; on any thread, also before anything is loaded."""
        return ServerStats(pid=os.getpid(), up_s=time.monotonic() - self._started, done=replace(self._done))

    def _check(self, digest: str) -> None:
        if self._signature.digest != digest:
            raise StreamError(
                "all servers of a stream must make the same draws, but one was restarted on "
                f"{socket.gethostname()}, which would make others ({self._signature.draws['compute']}); lower "
                "resources.servers, or set resources.server, so that nodes of one kind hold them"
            )


def draw_spec(generator: GeneratorSpec, artifact: Path | None, stream: StreamSpec, compute: str) -> dict[str, Any]:
    """Return everything that determines the draws of an image, apart from their names, as JSON values.

    The name of the ``artifact`` is the hash of a spec, and two trainings of one spec may end with different weights, so
    a digest of the weights is part of it too.

    Raises:
        OSError: the weights cannot be read.
    """
    return {
        "generator": generator.kind,
        **draw_settings(generator),
        "artefact": artifact.name if artifact else None,
        "weights": weights_digest(generator, artifact) if artifact else None,
        "seed": stream.seed,
        "compiled": stream.block_size if stream.compile else None,
        "compute": compute,
    }


def stream_digest(fingerprint: str, block_size: int, draws: Mapping[str, Any], chunk_size: int = ENCODE_BATCH) -> str:
    """Return the hash of what determines a block.

    That is the data set's fingerprint, the block size, the ``draw_spec``, and how many images are encoded together.
    """
    key = {"format": BLOCK_FORMAT, "data": fingerprint, "block_size": block_size, **draws}
    return content_key(BLOCKS, key if chunk_size == ENCODE_BATCH else {**key, "chunk_size": chunk_size})
