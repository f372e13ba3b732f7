"""Blocks on disk, for later runs and other studies.

    STORE/blocks/<hash of all that determines a block>/<replicate>-<class>-<index>.block
        checksum of the rest, 16 bytes | sources, little-endian int64 | images, uint8

A file is there whole or not at all; one that damage has changed is seen by its checksum, removed, and made again.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gitdist.disk import disk_trouble, write_atomic
from gitdist.generator.training import WEIGHTS_FILE
from gitdist.spec import GeneratorSpec, StreamSpec
from gitdist.store import content_key
from gitdist.store.manifest import checksum
from gitdist.stream.keys import Block, BlockKey, Layout

BLOCKS = "blocks"  # their folder in a store
BLOCK_FORMAT = 1
_CHECKSUM_BYTES = 16
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
        "artefact": artefact.name if artefact else None,
        "weights": checksum(artefact / WEIGHTS_FILE) if artefact else None,
        "seed": stream.seed,
        "compiled": stream.block_size if stream.compile else None,
        "compute": compute,
    }


def block_key(fingerprint: str, block_size: int, draws: Mapping[str, Any]) -> str:
    """Return the name of the folder of all blocks that are determined by data set, block size and draws."""
    return content_key(BLOCKS, {"format": BLOCK_FORMAT, "data": fingerprint, "block_size": block_size, **draws})


class BlockFolder:
    """The blocks in one directory; for several processes on several hosts at once."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Look into ``directory``, which ``save`` makes where it is missing; all its blocks have this layout."""
        self._directory = directory
        self._layout = layout

    def load(self, key: BlockKey) -> Block | None:
        """Return a block, read-only; None where it is not there, or was damaged and has been removed.

        Raises:
            DiskTrouble: the disk does not give it.
        """
        file = self._file(key)
        try:
            with disk_trouble(file):
                content = memoryview(file.read_bytes())
        except FileNotFoundError:
            return None
        checksum, rest = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if len(rest) != self._layout.block_bytes or _checksum(key, rest) != checksum:
            with disk_trouble(file):
                file.unlink(missing_ok=True)
            return None
        size = self._layout.block_size
        sources = np.frombuffer(rest, _SOURCE, count=size)
        images = np.frombuffer(rest, np.uint8, offset=sources.nbytes)
        return Block(images.reshape(size, *self._layout.image_shape), sources.astype(np.int64, copy=False))

    def save(self, key: BlockKey, block: Block) -> None:
        """Write a block.

        Raises:
            DiskTrouble: the disk does not take it; nothing of it is left there.
        """
        rest = block.sources.astype(_SOURCE, copy=False).tobytes() + block.images.tobytes()
        with disk_trouble(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file(key), _checksum(key, rest) + rest)

    def _file(self, key: BlockKey) -> Path:
        return self._directory / f"{key.replicate}-{key.class_index}-{key.index}.block"


def _checksum(key: BlockKey, content: bytes | memoryview) -> bytes:
    """The key is part of it: a file under another one's name is as wrong as a damaged one."""
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES, key=repr(tuple(key)).encode()).digest()
