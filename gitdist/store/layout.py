"""Where everything is in a store's directory, and where this machine's store of remote results is."""

import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from gitdist.disk import check_readable, check_results_directory, locked, results_directory_error
from gitdist.input_file import expand_home
from gitdist.store.artifact import ArtifactId

LOCK_FILES = "claims"  # named as in stores of earlier versions, whose processes may still run
_PINS = "holds"  # as above
ARRAYS = "arrays"  # the arrays that users gave, by the hash of their content
_OWN_DIRECTORIES = ("tmp", "work", "locks", LOCK_FILES, _PINS)
_KEY = re.compile(r"[0-9a-f]{20}")


class StoreLayout:
    """The files of the store at ``root``.

    <kind>/<key>/  artifacts
    tmp/           directories that are being built, fetched or deleted, and damaged artifacts
    work/          scratch directories of unfinished builds
    locks/         what the processes of one host lock
    claims/        lock files that other hosts see
    holds/         pins
    arrays/        what a user gave as arrays; stays
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp, self.work = root / "tmp", root / "work"
        self.lock_files, self.pins = root / LOCK_FILES, root / _PINS
        self.pin_lock = root / "locks" / _PINS

    def check_directories(self, *others: str) -> None:
        """Check that those of the store's own directories and of ``others`` that exist are directories; change nothing.

        Raises:
            StoreError: one is something else, or reading it is not allowed.
        """
        check_results_directory(self.root)
        for name in (*_OWN_DIRECTORIES, *others):
            check_readable(self.root / name, is_directory=True)

    def create(self) -> None:
        """Create the directories that every store has."""
        self.check_directories()
        try:
            for name in _OWN_DIRECTORIES:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with locked(self.lock("probe")):
                pass
        except OSError as error:
            raise results_directory_error(error.filename or self.root, error.strerror) from error

    def lock(self, name: str) -> Path:
        """Return what the processes of a host lock to build the artifact of that name."""
        return self.root / "locks" / name

    def path(self, artifact: ArtifactId) -> Path:
        """Return the artifact's directory."""
        return self.root / artifact.kind / artifact.key

    def last_use(self, artifact: ArtifactId) -> Path:
        """Return the file whose time is that of the artifact's last use; hidden, so it is not part of the artifact."""
        return self.path(artifact) / ".used"

    def scratch(self, artifact: ArtifactId) -> Path:
        """Return the directory that an unfinished build of the artifact keeps."""
        return self.work / str(artifact)

    def new_target(self, artifact: ArtifactId, prefix: str = "") -> Path:
        """Create an empty directory that becomes the artifact."""
        # No process id in the name: on a shared disk, containers of several hosts have the same ones.
        target = self.tmp / f"{prefix}{artifact}.{secrets.token_hex(8)}"
        target.mkdir()
        return target

    def move_aside(self, artifact: ArtifactId, reason: str) -> Path:
        """Move what has the artifact's name below tmp/ and return where it is; a full disk takes that, too."""
        aside = self.tmp / f"{reason}-{artifact}.{secrets.token_hex(8)}"
        self.path(artifact).rename(aside)
        return aside

    def artifacts(self) -> Iterator[ArtifactId]:
        """Yield the artifacts, intact or damaged."""
        for kind in sorted(path for path in self.root.iterdir() if path.is_dir() and path.name not in _OWN_DIRECTORIES):
            for path in sorted(path for path in kind.iterdir() if _KEY.fullmatch(path.name) and path.is_dir()):
                yield ArtifactId(kind.name, path.name)

    def now(self) -> float:
        """Return the time, in seconds, by the clock that the times of the store's files come from."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.tmp, prefix=".clock-") as file:
                os.utime(file.fileno())
                return os.stat(file.name).st_mtime
        except OSError:  # the store is read-only: use this host's clock
            return time.time()


def cache_directory(uri: str) -> Path:
    """Return this user's directory on this machine for the results at a URI: below $GITDIST_MIRROR or ~/.cache."""
    base = expand_home(os.environ.get("GITDIST_MIRROR") or "~/.cache/gitdist/mirrors").absolute()
    last = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(uri).path.rstrip("/").rpartition("/")[2])
    digest = hashlib.blake2b(uri.rstrip("/").encode(), digest_size=6).hexdigest()
    return base / f"{last or 'results'}-{digest}"


def cached_store(uri: str) -> Path:
    """Return the directory of this machine's store for the results at a URI."""
    return cache_directory(uri) / "store"
