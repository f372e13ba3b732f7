"""The artifacts that several stores share; one exists there once its manifest does, which is written last."""

from pathlib import Path
from typing import Literal

from gitdist.disk import fsync, write_atomic
from gitdist.store.artifact import MANIFEST, ArtifactId, is_intact, listed_files, stamps
from gitdist.store.file_tree import FileTree
from gitdist.store.locks import LockFiles


def shared_tree(uri: str, *, of_results: bool, waits: Literal["connected", "always"]) -> FileTree:
    """Return the files that stores share, with or without results; for ``waits`` see ``FileTree.of_uri``."""
    setting = "the URI of the results or store.uri" if of_results else "store.uri"
    return FileTree.of_uri(uri, setting=setting, waits=waits)


class SharedStore:
    """The artifacts that stores share. Every method raises StoreError if they cannot be reached."""

    def __init__(self, tree: FileTree, stale_s: float) -> None:
        self._tree = tree
        self.lock_files = LockFiles(tree, stale_s)

    def has(self, artifact: ArtifactId) -> bool:
        """Return whether a manifest and all files that it lists exist; ``fetch`` compares their content."""
        names = listed_files(self._tree.read(_name(artifact, MANIFEST)) or b"")
        return names is not None and self._tree.files(_name(artifact)).keys() >= set(names)

    def fetch(self, artifact: ArtifactId, target: Path) -> bool:
        """Copy an artifact into an empty directory and return whether it is there and intact."""
        manifest = self._tree.read(_name(artifact, MANIFEST)) or b""
        names = listed_files(manifest)
        if names is None:
            return False
        try:
            for name in names:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                self._tree.download(_name(artifact, name), target / name)
                fsync(target / name)
        except FileNotFoundError:
            return False
        write_atomic(target / MANIFEST, manifest)
        return is_intact(target, artifact.key)

    def upload(self, artifact: ArtifactId, directory: Path) -> None:
        """Copy an intact artifact there, over a damaged one; the caller has the build lock."""
        self._tree.delete(_name(artifact, MANIFEST))
        for name in stamps(directory):
            if name != MANIFEST:
                self._tree.upload(directory / name, _name(artifact, name))
        self._tree.write(_name(artifact, MANIFEST), (directory / MANIFEST).read_bytes())


def _name(artifact: ArtifactId, *file: str) -> str:
    return "/".join((*artifact, *file))
