"""What can go from a store: rubbish always, artefacts by age and down to a size."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitdist.store.eviction import is_recent, make_room, nobody_builds, remove
from gitdist.store.holds import server_time
from gitdist.store.inventory import Entry, measure, take_inventory
from gitdist.store.keys import ArtefactId
from gitdist.store.layout import Layout

DAY_S = 86_400.0

_TARGET_STALE_S = 3600.0  # of an unfinished directory, or file in one that grows, whose builder is dead
_SCRATCH_STALE_S = 30 * DAY_S


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Something removed, or to be removed: what it is, its name and its size in bytes."""

    what: str
    name: str
    num_bytes: int


@dataclass(frozen=True)
class _Rubbish:
    path: Path
    what: str
    builder: str | None = None  # the artefact that somebody alive may be using this for


def clean(
    layout: Layout, *, max_bytes: int | None = None, unused_s: float | None = None, dry_run: bool = False
) -> list[Removal]:
    """Remove rubbish, then artefacts that nobody holds or builds; return what was removed.

    Args:
        layout: the store's files.
        max_bytes: artefacts unused for longest go until the rest has so many bytes at most; None = no bound.
        unused_s: artefacts unused for so many seconds go; None = none for its age.
        dry_run: remove nothing, return what would be removed.
    """
    removals = list(_clear_rubbish(layout, dry_run))
    gone: set[ArtefactId] = set()

    def take(artefact: ArtefactId) -> bool:
        if artefact in gone or not (dry_run or remove(layout, artefact)):
            return False
        gone.add(artefact)
        return True

    entries: list[Entry] = []
    if unused_s is not None:
        now = server_time(layout.tmp)
        old = [entry for entry in take_inventory(layout) if now - entry.used_at >= unused_s and not entry.held_by]
        entries += [entry for entry in old if take(entry.artefact)]
    if max_bytes is not None:
        still_there = sum(entry.num_bytes for entry in entries) if dry_run else 0
        entries += make_room(layout, max_bytes + still_there, removing=take)[0]
    return removals + [Removal(what="artefact", name=_shown(entry), num_bytes=entry.num_bytes) for entry in entries]


def _clear_rubbish(layout: Layout, dry_run: bool) -> Iterator[Removal]:
    for rubbish in _find_rubbish(layout):
        num_bytes, _ = measure(rubbish.path)
        if dry_run or _clear(layout, rubbish):
            yield Removal(what=rubbish.what, name=rubbish.path.name, num_bytes=num_bytes)


def _find_rubbish(layout: Layout) -> Iterator[_Rubbish]:
    # Claims of the dead first: while they are there, somebody seems to build.
    for file in (*layout.claims.glob("*"), *layout.holds.glob("*")):
        if not is_recent(file):
            yield _Rubbish(file, "sign of a dead process")
    now = server_time(layout.tmp)
    for path in layout.tmp.glob("[!.]*"):
        if path.name.startswith(("damaged-", "evicted-")):
            yield _Rubbish(path, "damaged artefact" if path.name.startswith("damaged-") else "removed artefact")
        elif now - measure(path)[1] >= _TARGET_STALE_S:
            fetched = path.name.startswith("fetched-")  # without a claim
            yield _Rubbish(path, "unfinished artefact", None if fetched else path.name.rpartition(".")[0])
    for artefact in layout.artefacts():
        for path in layout.place(artefact).glob(".*.tmp"):
            if now - measure(path)[1] >= _TARGET_STALE_S:
                yield _Rubbish(path, "unfinished file")
    for path in layout.work.glob("[!.]*"):
        if now - measure(path)[1] >= _SCRATCH_STALE_S:
            yield _Rubbish(path, "unfinished build", path.name)


def _clear(layout: Layout, rubbish: _Rubbish) -> bool:
    if rubbish.builder is None:
        _delete(rubbish.path)
    else:
        with nobody_builds(layout, rubbish.builder) as is_free:
            if is_free:
                _delete(rubbish.path)
    return not rubbish.path.exists()


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _shown(entry: Entry) -> str:
    return "/".join(entry.artefact)
