"""What a store holds: its artefacts with size, last use and holders, as its files tell."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitdist.store.holds import holders
from gitdist.store.keys import ArtefactId
from gitdist.store.layout import Layout
from gitdist.store.manifest import MANIFEST


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An artefact in place.

    Attributes:
        artefact: its kind and key.
        num_bytes: the size of its files together.
        used_at: its last use, in seconds by the file server's clock.
        held_by: the running studies that hold it.
    """

    artefact: ArtefactId
    num_bytes: int
    used_at: float
    held_by: frozenset[str] = frozenset()


def take_inventory(layout: Layout) -> list[Entry]:
    """Return the artefacts in place, the least recently used first.

    A directory that grows and has no manifest (kept blocks) is an artefact like the others: it was used when its newest
    file was written, or when its mark says.
    """
    held = holders(layout.holds)
    entries = []
    for artefact in layout.artefacts():
        num_bytes, used_at = measure(layout.place(artefact))
        held_by = frozenset(held.get(str(artefact), ()))
        entries.append(Entry(artefact=artefact, num_bytes=num_bytes, used_at=used_at, held_by=held_by))
    return sorted(entries, key=lambda entry: (entry.used_at, entry.artefact))


def measure(path: Path) -> tuple[int, float]:
    """Return the bytes of a file, or of all files in a directory, and the time of the newest; 0 where it is gone."""
    num_bytes, newest = 0, 0.0
    for file in (path, *path.rglob("*")):
        try:
            status = os.lstat(file)
        except FileNotFoundError:  # removed meanwhile
            continue
        is_directory = file.is_dir()
        num_bytes += 0 if is_directory else status.st_size
        newest = max(newest, 0.0 if is_directory and file != path else status.st_mtime)
    return num_bytes, newest


def spec_of(layout: Layout, artefact: ArtefactId) -> Mapping[str, Any] | None:
    """Return the spec that an artefact was built from; None where no manifest tells it."""
    try:
        spec = json.loads((layout.place(artefact) / MANIFEST).read_bytes())["spec"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return spec if isinstance(spec, dict) else None
