"""The right to build one artefact, from the look that misses it to the files in place."""

from collections.abc import Callable
from pathlib import Path

Put = Callable[[Callable[[Path], None]], Path]


class Claim:
    """What ``Store.claim`` yields: the artefact if it is there, else the right to build it.

    Whoever was stopped for long may have lost the right and does not know: then two build at once, which harms nothing.

    Attributes:
        found: the artefact's directory, in place and whole; None where it is this process's turn to build it.
        scratch: a directory that outlives a killed builder and lasts until the artefact is put; it exists where
            ``found`` is None.
    """

    def __init__(self, found: Path | None, scratch: Path, put: Put) -> None:
        """Take what was found, the scratch and what puts the artefact in place."""
        self.found, self.scratch, self._put = found, scratch, put

    def put(self, build: Callable[[Path], None]) -> Path:
        """Put the artefact in place and return its directory; once, and only where nothing was found.

        The scratch is removed and the next in the queue can go on, even before the block of the claim ends.

        Args:
            build: ``build(target)`` writes the artefact's files into the empty directory ``target``.

        Raises:
            DiskError: the disk does not take it; the scratch is kept, and nothing half-made is in place.
            StoreError: the shared place does not take it; the artefact is in place in this store.
        """
        assert self.found is None, f"{self.found} is in place"
        self.found = self._put(build)
        return self.found
