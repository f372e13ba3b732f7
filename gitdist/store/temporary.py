"""A store that is deleted after its use, and reads the artifacts of another one without writing there."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gitdist.store.artifact import ArtifactId, is_intact
from gitdist.store.layout import StoreLayout
from gitdist.store.store import Store


class TemporaryStore(Store):
    """A store at ``root`` that finds the intact artifacts of the store at ``base`` too, whose use is not marked."""

    def __init__(self, root: Path, base: Path | None = None) -> None:
        super().__init__(root)
        self.base = base

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[object, ...]]:
        return TemporaryStore, (self.root, self.base)

    def _find(self, artifact: ArtifactId) -> Path | None:
        if self.base is not None:
            path = StoreLayout(self.base).path(artifact)
            if is_intact(path, artifact.key):
                return path
        return super()._find(artifact)


@contextmanager
def temporary_store(base: Path | None = None) -> Iterator[TemporaryStore]:
    """Yield an empty store in the temporary directory; ``base`` is another one that it may read."""
    with tempfile.TemporaryDirectory(prefix="gitdist-store-") as directory:
        yield TemporaryStore(Path(directory), base)
