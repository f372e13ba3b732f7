"""Where everything lies in a store's directory."""

import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gitdist.disk import locked
from gitdist.errors import StoreError
from gitdist.store.keys import ArtefactId

_OURS = ("tmp", "work", "locks", "holds", "claims")  # every other directory is a kind of artefacts
_KEY = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class Layout:
    """The files of the store at ``root``."""

    root: Path

    def create(self) -> None:
        """Make the directories that every store has.

        Raises:
            StoreError: they cannot be made or written.
        """
        try:
            for name in _OURS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with locked(self.lock("probe")):
                pass
        except OSError as error:
            raise StoreError(
                f"the results directory must be writable, but {error.filename or self.root} is not "
                f"({error.strerror}); choose another with --results DIR"
            ) from error

    @property
    def tmp(self) -> Path:
        """Directories that are being built, fetched or removed, and damaged artefacts."""
        return self.root / "tmp"

    @property
    def work(self) -> Path:
        """Scratch directories."""
        return self.root / "work"

    @property
    def holds(self) -> Path:
        """What running studies hold, a file a process."""
        return self.root / "holds"

    @property
    def claims(self) -> Path:
        """Who builds or waits to build, a file a builder."""
        return self.root / "claims"

    @property
    def holds_lock(self) -> Path:
        """Locked while artefacts are noted as held, and from the look at the holds to the removal of one."""
        return self.root / "locks" / "holds"

    def lock(self, name: str) -> Path:
        """The lock of the artefact of that name."""
        return self.root / "locks" / name

    def place(self, artefact: ArtefactId) -> Path:
        """The artefact's directory."""
        return self.root / artefact.kind / artefact.key

    def used_mark(self, artefact: ArtefactId) -> Path:
        """A file whose time is that of the artefact's last use; hidden, so none of its contents."""
        return self.place(artefact) / ".used"

    def scratch(self, artefact: ArtefactId) -> Path:
        """What an unfinished build of the artefact keeps."""
        return self.work / str(artefact)

    def new_target(self, artefact: ArtefactId, prefix: str = "") -> Path:
        """Make an empty directory that becomes the artefact."""
        # Process ids are no names on a shared disk: containers of several hosts have the same ones.
        target = self.tmp / f"{prefix}{artefact}.{secrets.token_hex(8)}"
        target.mkdir()
        return target

    def clear_targets(self, artefact: ArtefactId) -> None:
        """Remove the directories without prefix that were to become the artefact, which killed builders left."""
        for leftover in self.tmp.glob(f"{artefact}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def new_aside(self, reason: str, artefact: ArtefactId) -> Path:
        """Make an empty directory that an artefact is moved onto which is damaged or to be removed."""
        return Path(tempfile.mkdtemp(prefix=f"{reason}-{artefact}.", dir=self.tmp))

    def artefacts(self) -> Iterator[ArtefactId]:
        """Yield the artefacts in place, whole or damaged."""
        for kind in sorted(path for path in self.root.iterdir() if path.is_dir() and path.name not in _OURS):
            for place in sorted(path for path in kind.iterdir() if _KEY.fullmatch(path.name) and path.is_dir()):
                yield ArtefactId(kind.name, place.name)
