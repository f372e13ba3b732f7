"""The artefacts in a place that several results directories share; the manifest last makes one."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gitdist.disk import fsync, write_atomic
from gitdist.store.claims import Board
from gitdist.store.keys import ArtefactId
from gitdist.store.manifest import MANIFEST, file_names, is_whole, stamps
from gitdist.store.place import Place, Purpose

PATIENCE_S = 60.0  # with an object store that has the results

_CHUNK_BYTES = 8 << 20
_OF_RESULTS = Purpose("the shared store", "--results or store.uri", "correct --results or store.uri")


def place_of_results(uri: str) -> Place:
    """Return the place that the stores of several machines share for results on an object store.

    Raises:
        StoreError: it cannot be reached, written, read or deleted from.
    """
    return Place.of_uri(uri, _OF_RESULTS, patience_s=PATIENCE_S)


class SharedStore:
    """The second place of a store. Every method raises StoreError where the place cannot be reached."""

    def __init__(self, uri: str, stale_s: float, *, of_results: bool = False) -> None:
        """Take the place that ``uri`` names; its claims go stale after ``stale_s`` seconds.

        Where it is that ``of_results`` on an object store, what it refuses is tried again for a while.

        Raises:
            StoreError: it cannot be reached, written, read or deleted from.
        """
        self._place = place_of_results(uri) if of_results else Place.of_uri(uri)
        self.board = Board(self._place, stale_s)

    def has(self, artefact: ArtefactId) -> bool:
        """Tell whether a manifest and all files that it names are there; ``fetch`` compares their content."""
        manifest = self._place.read(_name(artefact, MANIFEST))
        names = None if manifest is None else file_names(manifest)
        return names is not None and self._place.files(f"{artefact.kind}/{artefact.key}").keys() >= set(names)

    def fetch(self, artefact: ArtefactId, target: Path) -> bool:
        """Copy an artefact into an empty directory and tell whether it is there and whole."""
        manifest = self._place.read(_name(artefact, MANIFEST))
        names = None if manifest is None else file_names(manifest)
        if manifest is None or names is None:
            return False
        try:
            for name in names:
                self._fetch_file(_name(artefact, name), target / name)
        except FileNotFoundError:
            return False
        write_atomic(target / MANIFEST, manifest)
        return is_whole(target, artefact.key)

    def upload(self, artefact: ArtefactId, directory: Path) -> None:
        """Copy a whole artefact there, in the place of a damaged one; the caller has its turn on the board."""
        manifest = _name(artefact, MANIFEST)
        self._place.delete(manifest)
        for name, _, _ in stamps(directory):
            if name != MANIFEST:
                self._place.write_chunks(_name(artefact, name), partial(_chunks, directory / name))
        self._place.write(manifest, (directory / MANIFEST).read_bytes())

    def _fetch_file(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._place.copy(name, target)
        fsync(target)


def _name(artefact: ArtefactId, file: str) -> str:
    return f"{artefact.kind}/{artefact.key}/{file}"


def _chunks(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
