"""Room for new artefacts: the one unused for longest goes first, and never one that somebody builds or holds."""

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gitdist.disk import locked, locked_if_free
from gitdist.store.holds import holders, server_time
from gitdist.store.inventory import Entry, take_inventory
from gitdist.store.keys import ArtefactId
from gitdist.store.layout import Layout

CLAIM_STALE_S = 3600.0


def make_room(
    layout: Layout,
    max_bytes: int,
    spare: Collection[ArtefactId] = (),
    removing: Callable[[ArtefactId], bool] | None = None,
) -> tuple[list[Entry], int]:
    """Remove artefacts until those that are left have ``max_bytes`` at most.

    Args:
        layout: the store's files.
        max_bytes: the bound on the size of all artefacts together.
        spare: artefacts that stay.
        removing: removes one and tells whether it is gone; None = ``remove``.

    Returns:
        the removed ones, and the bytes that those left may grow by; negative where too much of them must stay.
    """
    inventory = take_inventory(layout)
    excess = sum(entry.num_bytes for entry in inventory) - max_bytes
    removed = []
    for entry in inventory:
        if excess <= 0:
            break
        if entry.held_by or entry.artefact in spare:
            continue
        if removing(entry.artefact) if removing else remove(layout, entry.artefact):
            excess -= entry.num_bytes
            removed.append(entry)
    return removed, -excess


def remove(layout: Layout, artefact: ArtefactId) -> bool:
    """Remove an artefact unless it is held, or being built or uploaded; tell whether it is gone."""
    place = layout.place(artefact)
    with nobody_builds(layout, str(artefact)) as is_free:
        if not is_free:
            return False
        with locked(layout.holds_lock):
            if not place.exists() or str(artefact) in holders(layout.holds):
                return False
            aside = layout.new_aside("evicted", artefact)
            place.rename(aside)
        is_held = str(artefact) in holders(layout.holds)  # since then, by a process of another host
        if is_held:
            with suppress(OSError):  # that process has missed it already, and built it again
                aside.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
        return not is_held


@contextmanager
def nobody_builds(layout: Layout, name: str) -> Iterator[bool]:
    """Keep other processes of this host from building ``name`` during the block, unless somebody builds it anywhere.

    Yields:
        Whether nobody does.
    """
    with locked_if_free(layout.lock(name)) as is_free:
        yield is_free and not any(is_recent(claim) for claim in layout.claims.glob(f"{name}.*"))


def is_recent(claim: Path) -> bool:
    """Tell whether a claim was rewritten within the hour; a live one is, every few seconds."""
    now = server_time(claim.parent)
    with suppress(FileNotFoundError):
        return now - claim.stat().st_mtime < CLAIM_STALE_S
    return False
