"""What the tests of the store build, and how they change it."""

import os
from pathlib import Path

from gitdist.store import Store, content_key
from gitdist.store.artifact import ArtifactId

SPEC = {"data": "digits", "version": 0}
KEY = content_key("thing", SPEC)
NAME = f"thing-{KEY}"
BYTES = 10_000


def write_value(target: Path, scratch: Path | None = None) -> None:
    """Build the artifact of these tests."""
    (target / "part").mkdir()
    (target / "part" / "value.txt").write_text("whole")
    (target / "empty").touch()


def value_of(path: Path | None) -> str:
    assert path is not None
    return (path / "part" / "value.txt").read_text()


def refuse(target: Path, scratch: Path | None = None) -> None:
    """Fail: the artifact must not be built again."""
    raise AssertionError("must not be built again")


def change(file: Path) -> None:
    file.write_text("Whole")


def cut_short(file: Path) -> None:
    file.write_text("who")


def age(path: Path, seconds: float) -> None:
    """Make a file, or a directory with its files, this much older."""
    for file in (*path.rglob("*"), path):
        then = file.stat().st_mtime - seconds
        os.utime(file, (then, then))


def lock_files(root: Path) -> list[Path]:
    """The lock files of the artifact of these tests."""
    return list((root / "claims").glob("thing*"))


def is_empty(root: Path, *names: str) -> bool:
    """Whether directories of a store are empty; without names those that a build uses."""
    return not any(list((root / name).iterdir()) for name in names or ("tmp", "work", "claims"))


def _write_bytes(target: Path, scratch: Path) -> None:
    (target / "data").write_bytes(bytes(BYTES))


def build(store: Store, name: str) -> Path:
    return store.get_or_build("thing", {"name": name}, _write_bytes)


def build_each(root: Path, *names: str) -> list[Path]:
    """Build artifacts as other processes would, the first of them least recently used."""
    paths = [build(Store(root), name) for name in names]
    for index, path in enumerate(paths):
        age(path, 1000 - 100 * index)
    return paths


def artifact_of(path: Path) -> ArtifactId:
    return ArtifactId(path.parent.name, path.name)
