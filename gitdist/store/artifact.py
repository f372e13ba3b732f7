"""An artifact: a directory named by the hash of its spec, with a manifest of spec and checksums."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gitdist.disk import fsync, read_object, write_atomic

MANIFEST = "artefact.json"
_FORMAT_VERSION = 1


class ArtifactId(NamedTuple):
    """Kind and key of an artifact; as text, the name of its lock and of its scratch directory."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.key}"


class FileStamp(NamedTuple):
    """What changes when a file is written: its size in bytes and its time in nanoseconds since 1970."""

    num_bytes: int
    mtime_ns: int


def canonical_json(spec: Mapping[str, Any]) -> str:
    """Return the one JSON text of ``spec``: sorted keys, no blanks."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(kind: str, spec: Mapping[str, Any]) -> str:
    """Return the key of the artifact that ``spec`` determines: 20 hexadecimal digits."""
    text = canonical_json({"format": _FORMAT_VERSION, "kind": kind, "spec": spec})
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def seal(directory: Path, kind: str, spec: Mapping[str, Any]) -> None:
    """Bring a directory's files to the disk and write its manifest."""
    names = list(stamps(directory))
    for name in names:
        fsync(directory / name)
    checksums = {name: checksum(directory / name) for name in names}
    manifest = {"format": _FORMAT_VERSION, "kind": kind, "spec": spec, "checksums": checksums}
    write_atomic(directory / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())


def is_intact(directory: Path, key: str) -> bool:
    """Return whether a directory is the artifact ``key`` with all of its files as they were written."""
    try:
        manifest = read_object(directory / MANIFEST) or {}
        checksums = manifest["checksums"]
        return (
            content_key(manifest["kind"], manifest["spec"]) == key
            and {MANIFEST, *checksums} == stamps(directory).keys()
            and all(checksum(directory / name) == digest for name, digest in checksums.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def listed_files(manifest: bytes) -> list[str] | None:
    """Return the files that a manifest lists; None if it is damaged or names files outside its directory."""
    try:
        names = list(json.loads(manifest)["checksums"])
        paths = [PurePosixPath(name) for name in names]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return None if any(path.is_absolute() or ".." in path.parts for path in paths) else names


def read_spec(directory: Path) -> Mapping[str, Any] | None:
    """Return the spec of the artifact in a directory; None if its manifest is missing or damaged."""
    with suppress(OSError):
        spec = (read_object(directory / MANIFEST) or {}).get("spec")
        return spec if isinstance(spec, dict) else None
    return None


def stamps(directory: Path) -> dict[str, FileStamp]:
    """Return the files in a directory and below by name, without the hidden ones that other programs leave behind."""
    found = {}
    for path in sorted(directory.rglob("[!.]*")):
        with suppress(FileNotFoundError):  # the artifact is being deleted
            if path.is_file():
                status = path.stat()
                found[str(path.relative_to(directory))] = FileStamp(status.st_size, status.st_mtime_ns)
    return found


def checksum(path: Path, algorithm: str = "blake2b") -> str:
    """Return the hash of a file's content; ``algorithm`` is one of hashlib's."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
