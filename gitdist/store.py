"""A content-addressed store: expensive work is a pure function of its spec and is built at most once.

    get_or_build(kind, spec, build)
        key = hash(format version, kind, spec)
        STORE/<kind>/<key>/            there and its checksums hold  -> return it
                                       damaged                       -> set aside, build again
        STORE/work/<kind>-<key>/       scratch of the builder, kept until it succeeds (a killed build resumes there)
        STORE/tmp/<kind>-<key>.<pid>/  target of the build: files, then fsync, then one rename into place

A file lock per artefact makes the processes of one host wait for the one that builds.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitdist.errors import StoreError

FORMAT_VERSION = 1
_MANIFEST = "artefact.json"

Build = Callable[[Path, Path], None]


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
        self._verified: set[str] = set()
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
        """Return the artefact's directory if it is in place and whole, else None."""
        key = content_key(kind, spec)
        place = self._place(kind, key)
        if not place.is_dir():
            return None
        if key not in self._verified:
            if not _is_whole(place):
                return None
            self._verified.add(key)
        return place

    def get_or_build(self, kind: str, spec: Mapping[str, Any], build: Build) -> Path:
        """Return the directory of the artefact that ``spec`` determines, building it if it is not there.

        Args:
            kind: what it is, such as ``"dataset"``; the name of its folder in the store.
            spec: everything that determines it, as JSON values.
            build: ``build(target, scratch)`` writes the artefact's files into the empty directory ``target``;
                ``scratch`` outlives a killed build, so that a long one can go on from its own checkpoints.
        """
        key = content_key(kind, spec)
        with self._lock(f"{kind}-{key}"):
            found = self.find(kind, spec)
            return found if found is not None else self._build(kind, key, spec, build)

    def _build(self, kind: str, key: str, spec: Mapping[str, Any], build: Build) -> Path:
        place = self._place(kind, key)
        scratch = self.root / "work" / f"{kind}-{key}"
        self._sweep(f"{kind}-{key}")
        target = self.root / "tmp" / f"{kind}-{key}.{os.getpid()}"
        target.mkdir()
        scratch.mkdir(exist_ok=True)
        try:
            build(target, scratch)
            _seal(target, kind, spec)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        if place.exists():
            place.rename(tempfile.mkdtemp(prefix=f"damaged-{kind}-{key}.", dir=self.root / "tmp"))
        place.parent.mkdir(exist_ok=True)
        target.rename(place)
        _fsync(place.parent)
        shutil.rmtree(scratch, ignore_errors=True)
        self._verified.add(key)
        return place

    def _place(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def _sweep(self, name: str) -> None:
        """Remove what killed builders of this artefact left; the caller holds its lock, so none is alive."""
        for leftover in (self.root / "tmp").glob(f"{name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with open(self.root / "locks" / name, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or all of the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def _seal(directory: Path, kind: str, spec: Mapping[str, Any]) -> None:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in files:
        _fsync(path)
    checksums = {str(path.relative_to(directory)): _checksum(path) for path in files}
    manifest = {"format": FORMAT_VERSION, "kind": kind, "spec": spec, "checksums": checksums}
    write_atomic(directory / _MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())


def _is_whole(directory: Path) -> bool:
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        return all(_checksum(directory / name) == digest for name, digest in manifest["checksums"].items())
    except (OSError, ValueError, KeyError):
        return False


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
