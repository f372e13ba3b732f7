"""Blocks on disk, for later runs and other studies.

    STORE/blocks/<hash of all that determines a block>/<replicate>-<class>-<index>.block
        checksum of the rest, 16 bytes | sources, little-endian int64 | images, uint8

A file is there whole or not at all; one that damage has changed is seen by its checksum, removed, and made again. The
folder grows as far as the store's bound allows; blocks beyond that are made and delivered, but not kept. Of results on
an object store, what is kept is brought to the place that machines share too, and looked for there.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gitdist.disk import disk_errors, write_atomic
from gitdist.generator.kinds import draw_settings, weights_digest
from gitdist.spec import GeneratorSpec, StreamSpec
from gitdist.store import content_key
from gitdist.store.place import Place
from gitdist.stream.keys import Block, BlockKey, Layout

BLOCKS = "blocks"  # their folder in a store
BLOCK_FORMAT = 1
_CHECKSUM_BYTES = 16
_PORTION_BYTES = 64 * 2**20  # the folder grows by so much, at most, between two looks at the store
_SOURCE = np.dtype("<i8")


def draw_spec(generator: GeneratorSpec, artefact: Path | None, stream: StreamSpec, compute: str) -> dict[str, Any]:
    """Return everything that determines the draws of an image, but for their names, as JSON values.

    Args:
        generator: the generator's spec.
        artefact: directory of its trained weights; None where nothing is trained. Its name is the hash of a spec, and
            two trainings of one spec may end with different weights, so these are part of what is returned.
        stream: seed and compilation, which is for one block size.
        compute: the name of how the server computes.

    Raises:
        OSError: the weights cannot be read.
    """
    return {
        "generator": generator.kind,
        **draw_settings(generator),
        "artefact": artefact.name if artefact else None,
        "weights": weights_digest(generator, artefact) if artefact else None,
        "seed": stream.seed,
        "compiled": stream.block_size if stream.compile else None,
        "compute": compute,
    }


def block_key(fingerprint: str, block_size: int, draws: Mapping[str, Any]) -> str:
    """Return the name of the folder of all blocks that are determined by data set, block size and draws."""
    return content_key(BLOCKS, {"format": BLOCK_FORMAT, "data": fingerprint, "block_size": block_size, **draws})


class BlockFolder:
    """The blocks in one directory; for several processes on several hosts at once."""

    def __init__(
        self,
        directory: Path,
        layout: Layout,
        room: Callable[[int], int] = lambda num_bytes: num_bytes,
        shared: Place | None = None,
    ) -> None:
        """Look into a directory.

        Args:
            directory: ``save`` makes it where it is missing.
            layout: that of all its blocks.
            room: makes room for so many bytes and tells how many it may grow by, as ``Store.room``.
            shared: where stores of other machines have their blocks too; None = nowhere.
        """
        self._directory, self._layout, self._room, self._shared = directory, layout, room, shared
        self._portion = 0  # bytes to grow by before the next look
        self._is_full = False

    def load(self, key: BlockKey) -> Block | None:
        """Return a block, read-only; None where it is not there, or was damaged and has been removed.

        Raises:
            DiskError: the disk does not give it.
            StoreError: the shared place cannot be reached.
        """
        file = self._file(key)
        try:
            with disk_errors(file):
                block = self._unpack(key, file.read_bytes())
        except FileNotFoundError:
            return self._fetch(key)
        if block is None:
            with disk_errors(file):
                file.unlink(missing_ok=True)
        return block

    def save(self, key: BlockKey, block: Block) -> bool:
        """Write a block where there is room, and tell whether there was; once there was none, there is none any more.

        Raises:
            DiskError: the disk does not take it; nothing of it is left there.
            StoreError: the shared place cannot be reached.
        """
        if not self._take(self._layout.block_bytes + _CHECKSUM_BYTES):
            return False
        rest = block.sources.astype(_SOURCE, copy=False).tobytes() + block.images.tobytes()
        content = _checksum(key, rest) + rest
        self._write(key, content)
        if self._shared is not None:
            self._shared.write(self._shared_name(key), content)
        return True

    def _fetch(self, key: BlockKey) -> Block | None:
        content = None if self._shared is None else self._shared.read(self._shared_name(key))
        block = None if content is None else self._unpack(key, content)
        if content is not None and block is not None and self._take(len(content)):
            self._write(key, content)
        return block

    def _write(self, key: BlockKey, content: bytes) -> None:
        with disk_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file(key), content)

    def _unpack(self, key: BlockKey, content: bytes) -> Block | None:
        """Return the block in a file's content; None where that is damaged."""
        checksum, rest = content[:_CHECKSUM_BYTES], memoryview(content)[_CHECKSUM_BYTES:]
        if len(rest) != self._layout.block_bytes or _checksum(key, rest) != checksum:
            return None
        size = self._layout.block_size
        sources = np.frombuffer(rest, _SOURCE, count=size)
        images = np.frombuffer(rest, np.uint8, offset=sources.nbytes)
        return Block(images.reshape(size, *self._layout.image_shape), sources.astype(np.int64, copy=False))

    def _take(self, num_bytes: int) -> bool:
        if num_bytes > self._portion and not self._is_full:
            wanted = max(num_bytes, _PORTION_BYTES)
            self._portion = min(self._room(wanted), wanted)
            self._is_full = num_bytes > self._portion
        self._portion -= num_bytes
        return not self._is_full

    def _file(self, key: BlockKey) -> Path:
        return self._directory / f"{key.replicate}-{key.class_index}-{key.index}.block"

    def _shared_name(self, key: BlockKey) -> str:
        return f"{BLOCKS}/{self._directory.name}/{self._file(key).name}"


def _checksum(key: BlockKey, content: bytes | memoryview) -> bytes:
    """The key is part of it: a file under another one's name is as wrong as a damaged one."""
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES, key=repr(tuple(key)).encode()).digest()
