"""Blocks on disk, for later runs and other studies.

    STORE/blocks/<digest of all that determines a block>/<replicate>-<class>-<index>.block
        checksum of the rest, 16 bytes | sources, little-endian int64 | images, uint8

A file is complete or missing. A damaged one is detected by its checksum, removed, and made again. The cache grows up to
the store's limit; further blocks are made and delivered, but not written. With results on an object store, blocks are
also written there, and read from there if they are missing on this machine.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gitdist.disk import disk_errors, write_atomic
from gitdist.store.file_tree import FileTree
from gitdist.stream.blocks import Block, BlockKey, BlockLayout

BLOCKS = "blocks"  # their folder in a store
BLOCK_FORMAT = 1
_CHECKSUM_BYTES = 16
_GRANT_BYTES = 64 * 2**20  # the cache grows by at most this between two requests for space
_SOURCE = np.dtype("<i8")


class BlockCache:
    """The blocks in one directory; several processes on several hosts may use it at once."""

    def __init__(
        self,
        directory: Path,
        layout: BlockLayout,
        make_space: Callable[[int], int] = lambda num_bytes: num_bytes,
        shared: FileTree | None = None,
    ) -> None:
        """Open a directory, which ``save`` creates if it is missing."""
        self._directory, self._layout, self._make_space, self._shared = directory, layout, make_space, shared
        self._granted = 0  # bytes that may be written before space is requested again
        self._is_full = False

    def load(self, key: BlockKey) -> Block | None:
        """Return a block, read-only; None if it is missing, or was damaged and has been removed."""
        file = self._file(key)
        try:
            with disk_errors(file):
                block = self._unpack(key, file.read_bytes())
        except FileNotFoundError:
            return self._load_shared(key)
        if block is None:
            with disk_errors(file):
                file.unlink(missing_ok=True)
        return block

    def save(self, key: BlockKey, block: Block) -> bool:
        """Write a block and return True, or return False if the store is full; it stays full from then on."""
        if not self._take_space(self._layout.block_bytes + _CHECKSUM_BYTES):
            return False
        rest = block.sources.astype(_SOURCE, copy=False).tobytes() + block.images.tobytes()
        content = _checksum(key, rest) + rest
        self._write(key, content)
        if self._shared is not None:
            self._shared.write(self._shared_name(key), content)
        return True

    def _load_shared(self, key: BlockKey) -> Block | None:
        content = None if self._shared is None else self._shared.read(self._shared_name(key))
        block = None if content is None else self._unpack(key, content)
        if content is not None and block is not None and self._take_space(len(content)):
            self._write(key, content)
        return block

    def _write(self, key: BlockKey, content: bytes) -> None:
        with disk_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file(key), content)

    def _unpack(self, key: BlockKey, content: bytes) -> Block | None:
        """Return the block in a file's content; None if the content is damaged."""
        checksum, rest = content[:_CHECKSUM_BYTES], memoryview(content)[_CHECKSUM_BYTES:]
        if len(rest) != self._layout.block_bytes or _checksum(key, rest) != checksum:
            return None
        size = self._layout.block_size
        sources = np.frombuffer(rest, _SOURCE, count=size)
        images = np.frombuffer(rest, np.uint8, offset=sources.nbytes)
        return Block(images.reshape(size, *self._layout.image_shape), sources.astype(np.int64, copy=False))

    def _take_space(self, num_bytes: int) -> bool:
        if num_bytes > self._granted and not self._is_full:
            wanted = max(num_bytes, _GRANT_BYTES)
            self._granted = min(self._make_space(wanted), wanted)
            self._is_full = num_bytes > self._granted
        self._granted -= num_bytes
        return not self._is_full

    def _file(self, key: BlockKey) -> Path:
        return self._directory / f"{key.replicate}-{key.class_index}-{key.index}.block"

    def _shared_name(self, key: BlockKey) -> str:
        return f"{BLOCKS}/{self._directory.name}/{self._file(key).name}"


def _checksum(key: BlockKey, content: bytes | memoryview) -> bytes:
    """The key is part of it: a file under another block's name is as wrong as a damaged one."""
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES, key=repr(tuple(key)).encode()).digest()
