"""What a store holds, and the deletion of what nobody needs: leftovers of dead processes, artifacts by age and size."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gitdist.disk import locked
from gitdist.durations import DAY_S
from gitdist.store.artifact import ArtifactId
from gitdist.store.file_tree import FileTree
from gitdist.store.layout import StoreLayout
from gitdist.store.locks import BuildLock, LockFiles
from gitdist.store.pins import pinned

_UNUSED_S = 3600.0  # a living process writes its files more often, except for scratch
_SCRATCH_UNUSED_S = 30 * DAY_S


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """An artifact with its size, its last use by the clock of the store's files, and the studies that pin it."""

    artifact: ArtifactId
    num_bytes: int
    used_at: float
    pinned_by: frozenset[str] = frozenset()


class Removal(NamedTuple):
    """Something deleted, or to be deleted: what it is, where it is, and its size."""

    what: str
    path: Path
    num_bytes: int


def read_inventory(layout: StoreLayout) -> list[StoredArtifact]:
    """Return the artifacts of a store, the least recently used first; writing a file of one is a use."""
    studies, entries = pinned(layout), []
    for artifact in layout.artifacts():
        num_bytes, used_at = _measure(layout.path(artifact))
        pinned_by = frozenset(studies.get(str(artifact), ()))
        entries.append(StoredArtifact(artifact=artifact, num_bytes=num_bytes, used_at=used_at, pinned_by=pinned_by))
    return sorted(entries, key=lambda entry: (entry.used_at, entry.artifact))


def delete_unused(
    layout: StoreLayout, *, max_bytes: int | None = None, unused_s: float | None = None, dry_run: bool = False
) -> list[Removal]:
    """Delete leftovers of dead processes, then artifacts as ``evict`` does; return what was, or would be, deleted."""
    leftovers = [leftover for leftover in list(_leftovers(layout)) if dry_run or _delete_leftover(layout, leftover)]
    evicted, _ = evict(layout, max_bytes=max_bytes, unused_s=unused_s, dry_run=dry_run)
    return leftovers + [Removal("artifact", layout.path(each.artifact), each.num_bytes) for each in evicted]


def evict(
    layout: StoreLayout,
    *,
    max_bytes: int | None = None,
    unused_s: float | None = None,
    keep: ArtifactId | None = None,
    dry_run: bool = False,
) -> tuple[list[StoredArtifact], int]:
    """Delete artifacts that no running study pins and nobody builds, the least recently used first.

    Those that were not used for ``unused_s`` seconds are deleted, then others until what is left has ``max_bytes``.

    Returns:
        what was, or would be, deleted, and the size of what is left in bytes.
    """
    inventory, now = read_inventory(layout), layout.now()
    num_bytes, evicted = sum(entry.num_bytes for entry in inventory), []
    for entry in inventory:
        is_old = unused_s is not None and now - entry.used_at >= unused_s
        is_too_much = max_bytes is not None and num_bytes > max_bytes
        if (is_old or is_too_much) and not entry.pinned_by and entry.artifact != keep:
            if dry_run or delete_artifact(layout, entry.artifact):
                num_bytes -= entry.num_bytes
                evicted.append(entry)
    return evicted, num_bytes


def delete_artifact(layout: StoreLayout, artifact: ArtifactId) -> bool:
    """Delete an artifact unless a study pins it or a process builds or uploads it; return whether it is deleted."""
    with _lock_if_free(layout, str(artifact)) as is_locked:
        if not is_locked:
            return False
        with locked(layout.pin_lock):
            if not layout.path(artifact).exists() or str(artifact) in pinned(layout):
                return False
            aside = layout.move_aside(artifact, "evicted")
        is_pinned = str(artifact) in pinned(layout)  # since then, by another host
        if is_pinned:
            with suppress(OSError):  # that host has missed it and built it again
                aside.rename(layout.path(artifact))
        shutil.rmtree(aside, ignore_errors=True)
        return not is_pinned


def _leftovers(layout: StoreLayout) -> Iterator[Removal]:
    now = layout.now()
    groups = [
        ("lock or pin of a dead process", _UNUSED_S, [*layout.lock_files.glob("*"), *layout.pins.glob("*")]),
        ("unfinished or damaged artifact", _UNUSED_S, layout.tmp.glob("[!.]*")),
        ("unfinished build", _SCRATCH_UNUSED_S, layout.work.glob("[!.]*")),
        *(("unfinished file", _UNUSED_S, layout.path(each).glob(".*.tmp")) for each in layout.artifacts()),
    ]
    for what, unused_s, paths in groups:
        for path in paths:
            num_bytes, written_at = _measure(path)
            if now - written_at >= unused_s:
                yield Removal(what, path, num_bytes)


def _delete_leftover(layout: StoreLayout, leftover: Removal) -> bool:
    path, name = leftover.path, leftover.path.name
    if path.is_dir():
        for prefix in ("damaged-", "evicted-", "fetched-"):
            name = name.removeprefix(prefix)
        with _lock_if_free(layout, name.partition(".")[0]) as is_locked:
            if is_locked:
                shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return not path.exists()


@contextmanager
def _lock_if_free(layout: StoreLayout, name: str) -> Iterator[bool]:
    """Hold the build lock of an artifact during the block unless another process does; yield whether it is held."""
    for file in layout.lock_files.glob(f"{name}.*"):
        if layout.now() - _measure(file)[1] >= _UNUSED_S:
            with suppress(OSError):
                file.unlink()
    lock = BuildLock(layout.lock(name), [LockFiles(FileTree.local(layout.root))])
    is_locked = lock.acquire(blocking=False)
    try:
        yield is_locked
    finally:
        lock.release()


def _measure(path: Path) -> tuple[int, float]:
    """Return the size of a file, or of all files in a directory, and the time of the newest; 0 if it is gone."""
    num_bytes, newest = 0, 0.0
    for file in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            status = file.lstat()
            is_directory = file.is_dir()
            num_bytes += 0 if is_directory else status.st_size
            newest = max(newest, 0.0 if is_directory and file != path else status.st_mtime)
    return num_bytes, newest
