"""What makes a directory an artefact: a manifest with its spec and the checksum of every other file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from gitdist.disk import fsync, write_atomic
from gitdist.store.keys import FORMAT_VERSION, content_key

MANIFEST = "artefact.json"

Stamp = tuple[str, int, int]


def seal(directory: Path, kind: str, spec: Mapping[str, Any]) -> None:
    """Bring a directory's files to the disk and write its manifest."""
    names = [name for name, _, _ in stamps(directory)]
    for name in names:
        fsync(directory / name)
    checksums = {name: checksum(directory / name) for name in names}
    manifest = {"format": FORMAT_VERSION, "kind": kind, "spec": spec, "checksums": checksums}
    write_atomic(directory / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())


def is_whole(place: Path, key: str) -> bool:
    """Tell whether a directory is the artefact ``key`` with all of its files as they were written."""
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        checksums = manifest["checksums"]
        return (
            content_key(manifest["kind"], manifest["spec"]) == key
            and {MANIFEST, *checksums} == {name for name, _, _ in stamps(place)}
            and all(checksum(place / name) == digest for name, digest in checksums.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def file_names(manifest: bytes) -> list[str] | None:
    """Return the files that a manifest lists; None where it is damaged or names files outside its directory."""
    try:
        names = list(json.loads(manifest)["checksums"])
    except (ValueError, KeyError, TypeError):
        return None
    inside = all(not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in names)
    return names if inside else None


def stamps(place: Path) -> list[Stamp]:
    """Return what tells without reading that the files are still those that were read: name, bytes, time.

    Hidden files are none of ours: file managers and network disks leave some behind.
    """
    found: list[Stamp] = []
    for path in sorted(_files(place)):
        with suppress(FileNotFoundError):  # whoever makes room is taking the artefact away
            stat = path.stat()
            found.append((str(path.relative_to(place)), stat.st_size, stat.st_mtime_ns))
    return found


def checksum(path: Path) -> str:
    """Return the hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _files(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("[!.]*") if path.is_file())
