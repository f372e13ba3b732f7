"""A content-addressed store: expensive work is a pure function of its spec and is built at most once.

    get_or_build(kind, spec, build)
        key = hash(format version, kind, spec)
        STORE/<kind>/<key>/            there and its checksums hold  -> return it
                                       damaged                       -> set aside, build again
        STORE/work/<kind>-<key>/       scratch of the builder, kept until it succeeds (a killed build resumes there)
        STORE/tmp/<kind>-<key>.<pid>/  target of the build: files, then fsync, then one rename into place

A file lock per artefact makes the processes of one host wait for the one that builds.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gitdist.disk import disk_trouble, fsync, locked, write_atomic
from gitdist.errors import StoreError

FORMAT_VERSION = 1
_MANIFEST = "artefact.json"

Build = Callable[[Path, Path], None]
_Stamp = tuple[str, int, int]


def canonical_json(spec: Mapping[str, Any]) -> str:
    """Return the one JSON text of ``spec``: sorted keys, no blanks."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(kind: str, spec: Mapping[str, Any]) -> str:
    """Return the name of the artefact that ``spec`` determines: 20 hexadecimal digits."""
    text = canonical_json({"format": FORMAT_VERSION, "kind": kind, "spec": spec})
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


class Store:
    """Artefacts under one directory, each named by the hash of what determines it.

    Safe for several processes of one host; an artefact never changes once it is in place.
    """

    def __init__(self, root: Path) -> None:
        """Open the store at ``root``, creating it where needed.

        Raises:
            StoreError: the directory cannot be created or written.
        """
        self.root = Path(root)
        self._verified: dict[str, list[_Stamp]] = {}
        try:
            for name in ("tmp", "work", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with self._lock("probe"):
                pass
        except OSError as error:
            raise StoreError(
                f"the results directory must be writable, but {error.filename or self.root} is not "
                f"({error.strerror}); choose another with --results DIR"
            ) from error

    def find(self, kind: str, spec: Mapping[str, Any]) -> Path | None:
        """Return the artefact's directory if it is in place and whole, else None.

        Its checksums are compared at the first use and again after a file has changed its size or time.
        """
        key = content_key(kind, spec)
        place = self._place(kind, key)
        stamps = _stamps(place)
        if self._verified.get(key) != stamps:
            self._verified.pop(key, None)
            if not _is_whole(place, key):
                return None
            self._verified[key] = stamps
        return place

    def get_or_build(self, kind: str, spec: Mapping[str, Any], build: Build) -> Path:
        """Return the directory of the artefact that ``spec`` determines, building it if it is not there.

        Args:
            kind: what it is, such as ``"dataset"``; the name of its folder in the store.
            spec: everything that determines it, as JSON values.
            build: ``build(target, scratch)`` writes the artefact's files into the empty directory ``target``;
                ``scratch`` outlives a killed build, so that a long one can go on from its own checkpoints.

        Raises:
            DiskTrouble: the disk does not take it; ``scratch`` is kept, and nothing half-made is in place.
        """
        key = content_key(kind, spec)
        with disk_trouble(self._place(kind, key)), self._lock(f"{kind}-{key}"):
            found = self.find(kind, spec) or self._build(kind, key, spec, build)
            shutil.rmtree(self._scratch(kind, key), ignore_errors=True)
            return found

    def _build(self, kind: str, key: str, spec: Mapping[str, Any], build: Build) -> Path:
        place = self._place(kind, key)
        scratch = self._scratch(kind, key)
        self._sweep(f"{kind}-{key}")
        target = self.root / "tmp" / f"{kind}-{key}.{os.getpid()}"
        target.mkdir()
        scratch.mkdir(exist_ok=True)
        try:
            build(target, scratch)
            _seal(target, kind, spec)
            place.parent.mkdir(exist_ok=True)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        if place.exists():
            place.rename(tempfile.mkdtemp(prefix=f"damaged-{kind}-{key}.", dir=self.root / "tmp"))
        target.rename(place)
        fsync(place.parent)
        self._verified[key] = _stamps(place)
        return place

    def _scratch(self, kind: str, key: str) -> Path:
        return self.root / "work" / f"{kind}-{key}"

    def _place(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def _sweep(self, name: str) -> None:
        """Remove what killed builders of this artefact left; the caller holds its lock, so none is alive."""
        for leftover in (self.root / "tmp").glob(f"{name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _lock(self, name: str) -> AbstractContextManager[None]:
        return locked(self.root / "locks" / name)


def _seal(directory: Path, kind: str, spec: Mapping[str, Any]) -> None:
    names = [name for name, _, _ in _stamps(directory)]
    for name in names:
        fsync(directory / name)
    checksums = {name: _checksum(directory / name) for name in names}
    manifest = {"format": FORMAT_VERSION, "kind": kind, "spec": spec, "checksums": checksums}
    write_atomic(directory / _MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())


def _is_whole(place: Path, key: str) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_bytes())
        checksums = manifest["checksums"]
        return (
            content_key(manifest["kind"], manifest["spec"]) == key
            and {_MANIFEST, *checksums} == {name for name, _, _ in _stamps(place)}
            and all(_checksum(place / name) == digest for name, digest in checksums.items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _stamps(place: Path) -> "list[_Stamp]":
    """Return what tells without reading that the files are still those that were read: name, bytes, time.

    Hidden files are none of ours: file managers and network disks leave some behind.
    """
    files = sorted(path for path in place.rglob("[!.]*") if path.is_file())
    return [(str(path.relative_to(place)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
