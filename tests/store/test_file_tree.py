from pathlib import Path

import pytest

from gitdist.errors import StoreError
from gitdist.store.file_tree import FileTree
from tests.object_store import ObjectStore


@pytest.fixture(params=["directory", "object store"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> FileTree:
    if request.param == "directory":
        return FileTree.of_uri(f"{tmp_path}/root")
    store: ObjectStore = request.getfixturevalue("object_store")
    return FileTree.of_uri(store.uri)


def test_files_are_written_listed_read_and_deleted(tree: FileTree, tmp_path: Path) -> None:
    assert tree.files("") == {} and tree.read("a") is None
    tree.write("a", b"one")
    tree.write("a", b"two")
    tree.write("below/b.gz", b"not packed")
    assert tree.read("a") == b"two" and tree.read("below/b.gz") == b"not packed"
    assert {name: stamp.num_bytes for name, stamp in tree.files("").items()} == {"a": 3, "below/b.gz": 10}
    assert set(tree.files("", recursive=False)) == {"a"} and set(tree.files("below")) == {"b.gz"}
    tree.delete("a")
    tree.delete("a")
    assert tree.read("a") is None and tree.files("none") == {}
    with pytest.raises(FileNotFoundError):
        tree.download("a", tmp_path / "copy")


def test_large_files_are_copied_in_pieces(tree: FileTree, tmp_path: Path) -> None:
    content = bytes(range(256)) * 2**16  # 16 MiB
    (tmp_path / "large.gz").write_bytes(content)
    tree.upload(tmp_path / "large.gz", "some/where/large.gz")
    tree.download("some/where/large.gz", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_a_local_disk_that_is_full_is_not_an_error_of_the_tree(tree: FileTree) -> None:
    tree.write("a", bytes(100_000))
    with pytest.raises(OSError, match="No space left"):
        tree.download("a", Path("/dev/full"))


def test_a_missing_root_is_created_but_not_its_parent_nor_later(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must be reachable"):
        FileTree.of_uri(f"{tmp_path}/a/b")
    tree = FileTree.of_uri(f"{tmp_path}/a")
    (tmp_path / "a").rmdir()
    with pytest.raises(StoreError, match="must be reachable"):
        tree.write("below/name", b"x")
    assert not (tmp_path / "a").exists()


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must be UTF-8, but it is .*caf\\udce9") as caught:
        FileTree.local(tmp_path / "caf\udce9")
    assert caught.value.remedy == "other_results"
