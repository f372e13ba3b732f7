"""The Ray actor that generates: one process with the generator, the training images and their content codes.

    router -- make(key) -->  queue of this actor  --> BlockFolder, else BlockMaker --> Block in the node's object store
    driver -- transform() -->                     --> BlockMaker -------------------> images
    lookout - stats() ----->  beside the queue    --> what has been done

One call at a time, in the order of arrival, but for ``stats`` in its own concurrency group. Nobody waits in here:
callers hold a reference and wait for that. An exception travels in the reference to everyone who holds it; a killed
process is started again by Ray, perhaps on another node, which also repeats the calls it had not answered. Who asks
for draws names the stream's blocks, so a node that would make others refuses.
"""

import os
import socket
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, limit_to_share
from gitdist.errors import StreamError
from gitdist.generator.kinds import load_generator
from gitdist.spec import GeneratorSpec, Share, StreamSpec
from gitdist.store import Store
from gitdist.store.shared import place_of_results
from gitdist.stream.blocks import BlockMaker, MakerStats
from gitdist.stream.kept import BLOCKS, BlockFolder, block_key, draw_spec
from gitdist.stream.keys import Block, BlockKey, Product
from gitdist.stream.metrics import ServerMetrics

BESIDE = "beside"  # the concurrency group in which ``stats`` may be called while blocks are made


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """All that a server needs to start, on whichever node.

    Attributes:
        dataset: directory of the prepared data set.
        generator: the generator's spec.
        artefact: directory of its trained weights; None where nothing is trained.
        stream: the stream's seed, block size and precision, and for the launch its servers and window.
        device: where it computes; None = a GPU if one is visible.
        store: where blocks are kept on disk, read and added to; None = none are kept.
        origin: the store that both directories are in, where this node may have them elsewhere or not yet.
    """

    dataset: Path
    generator: GeneratorSpec
    artefact: Path | None
    stream: StreamSpec
    device: str | None = None
    store: Store | None = None
    origin: Store | None = None

    def here(self) -> "ServerConfig":
        """Return the same with the directories as they are on this node, fetched where it has none.

        Raises:
            StoreError: they must be fetched, and cannot be.
        """
        if self.origin is None:
            return self
        artefact = self.artefact and self.origin.here(self.artefact)
        return replace(self, dataset=self.origin.here(self.dataset), artefact=artefact, origin=None)

    @property
    def compute(self) -> Compute:
        """Device and precision of this process."""
        return Compute.resolve(self.stream.precision, self.device)

    def build_maker(self) -> BlockMaker:
        """Load data set and generator and return the maker of the stream's blocks.

        Raises:
            DataError: the data set cannot be read.
            SpecError: the generator is a plugin that does not give one.
            StoreError: the generator's weights cannot be read, or must be fetched and cannot be.
        """
        here = self.here()
        dataset = Dataset.open(here.dataset)
        batch = self.stream.block_size if self.stream.compile else None
        generator = load_generator(self.generator, dataset, here.artefact, self.compute, batch)
        train = dataset.train
        return BlockMaker(generator, train.images, train.clean, train.labels, self.stream.seed, self.stream.block_size)


@dataclass(frozen=True, kw_only=True)
class ServerStats:
    """A server's process, and what it has done since it started.

    Attributes:
        pid: process id.
        up_s: seconds since it began.
        done: its work.
    """

    pid: int
    up_s: float
    done: MakerStats


class GeneratorServer:
    """Generates blocks and transforms images; run as a Ray actor.

    Data set and generator are loaded by the first call but ``stats``, so that a failure to load reaches a caller.
    """

    def __init__(self, config: ServerConfig, share: Share, name: str | None = None) -> None:
        """Keep to the server's share of its node; with the actor's ``name``, its work is counted in Ray's metrics."""
        self._began = time.monotonic()
        limit_to_share(share.cpu, share.gpu)
        self._given = config
        self._done = MakerStats()
        self._metrics = ServerMetrics(name) if name else None

    @cached_property
    def _config(self) -> ServerConfig:
        return self._given.here()

    @cached_property
    def _maker(self) -> BlockMaker:
        maker = self._config.build_maker()
        self._done = maker.stats
        return maker

    @cached_property
    def _product(self) -> Product:
        config, layout = self._config, self._maker.layout
        draws = draw_spec(config.generator, config.artefact, config.stream, config.compute.name)
        key = block_key(Dataset.open(config.dataset).fingerprint, layout.block_size, draws)
        return Product(layout=layout, draws=draws, block_key=key)

    @cached_property
    def _folder(self) -> BlockFolder | None:
        store = self._config.store
        if store is None:
            return None
        shared = place_of_results(store.shared) if store.results is not None and store.shared is not None else None
        return BlockFolder(store.root / BLOCKS / self._product.block_key, self._maker.layout, store.room, shared)

    def product(self) -> Product:
        """Load, and return what this server makes."""
        return self._product

    def make(self, key: BlockKey, block_key: str) -> Block:
        """Return one block, from the disk or see ``BlockMaker.make``, with ballast where it is small.

        Args:
            key: the block.
            block_key: that of the stream's product.

        Raises:
            DiskError: the block is to be kept, and the disk does not take it.
            StreamError: here another block would be made.
        """
        self._check(block_key)
        block, ballast = self._kept(key) or self._made(key), self._maker.layout.ballast_bytes
        self._count()
        return replace(block, ballast=np.zeros(ballast, np.uint8)) if ballast else block

    def transform(
        self, images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int, block_key: str
    ) -> NDArray[np.uint8]:
        """Return one fresh draw for each of the given images; see ``BlockMaker.transform``, and ``make``."""
        self._check(block_key)
        drawn = self._maker.transform(images, clean, name, index)
        self._count()
        return drawn

    def stats(self) -> ServerStats:
        """Return what this server has done; on whichever thread, and before anything is loaded too."""
        return ServerStats(pid=os.getpid(), up_s=time.monotonic() - self._began, done=replace(self._done))

    def _check(self, block_key: str) -> None:
        if self._product.block_key != block_key:
            raise StreamError(
                f"all draws of a stream must be made in the same way, but its server is now on {socket.gethostname()}, "
                f"where others would be made ({self._product.draws['compute']}); lower resources.servers, or set "
                "resources.server, so that nodes of one kind hold them"
            )

    def _count(self) -> None:
        if self._metrics:
            self._metrics.note(self._maker.stats)

    def _kept(self, key: BlockKey) -> Block | None:
        block = self._folder.load(key) if self._folder else None
        self._maker.stats.read += block is not None
        return block

    def _made(self, key: BlockKey) -> Block:
        block = self._maker.make(key)
        if self._folder:
            self._maker.stats.unkept += not self._folder.save(key, block)
        return block
