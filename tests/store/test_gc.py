from pathlib import Path

from gitdist.store import Store, content_key
from gitdist.store.artifact import ArtifactId
from gitdist.store.gc import delete_artifact, evict, read_inventory
from gitdist.store.layout import StoreLayout
from tests.disks import fill, small_disk
from tests.store.things import BYTES, age, artifact_of, build, build_each, is_empty

BOUND = 25_000  # two artifacts and a half


def test_the_least_recently_used_artifact_is_deleted_first(tmp_path: Path) -> None:
    a, b = build_each(tmp_path, "a", "b")
    build(Store(tmp_path), "a")
    store = Store(tmp_path, max_bytes=BOUND)
    c = build(store, "c")
    assert (a.exists(), b.exists(), c.exists()) == (True, False, True)
    assert is_empty(tmp_path)
    assert build(store, "b") == b and b.exists()


def test_without_a_limit_nothing_is_deleted(tmp_path: Path) -> None:
    assert all(path.exists() for path in build_each(tmp_path, *"abcd"))


def test_what_was_just_built_stays_however_large(tmp_path: Path) -> None:
    (a,) = build_each(tmp_path, "a")
    b = build(Store(tmp_path, max_bytes=1), "b")
    assert b.exists() and not a.exists()


def test_what_is_being_built_or_uploaded_stays_unless_its_builder_is_dead(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    (a,) = build_each(tmp_path, "a")
    lock_file = layout.lock_files / f"{artifact_of(a)}.0123"  # of another host
    lock_file.touch()
    assert not delete_artifact(layout, artifact_of(a))
    age(lock_file, 7200)
    assert delete_artifact(layout, artifact_of(a)) and is_empty(tmp_path)


def test_a_directory_that_grows_is_one_artifact_used_when_it_last_grew(tmp_path: Path) -> None:
    store, (a, b) = Store(tmp_path), build_each(tmp_path, "a", "b")
    layout, key = StoreLayout(tmp_path), content_key("blocks", {"stream": 1})
    blocks = tmp_path / "blocks" / key
    (blocks / "class-0").mkdir(parents=True)
    (blocks / "class-0" / "0.arrow").write_bytes(bytes(BYTES))
    age(blocks, 950)
    assert [entry.artifact.kind for entry in read_inventory(layout)] == ["thing", "blocks", "thing"]
    (blocks / "class-0" / "1.arrow").write_bytes(bytes(BYTES))
    entries = read_inventory(layout)
    assert entries[-1].artifact == ArtifactId("blocks", key)
    assert entries[-1].num_bytes >= 2 * BYTES
    age(blocks, 5000)
    with store.pin_used("study"):
        assert store.mark_used("blocks", key)
        age(blocks, 5000)
        evicted, num_bytes = evict(layout, max_bytes=0)
        assert num_bytes == entries[-1].num_bytes  # but for the mark of its use, which is empty
    assert {entry.artifact.key for entry in evicted} == {a.name, b.name}
    assert [entry.artifact.key for entry in evict(layout, max_bytes=0)[0]] == [key] and not blocks.exists()


def test_how_much_a_store_may_grow_by(tmp_path: Path) -> None:
    (a,) = build_each(tmp_path, "a")
    size = read_inventory(StoreLayout(tmp_path))[0].num_bytes
    store = Store(tmp_path, max_bytes=BOUND)
    assert store.free_up(BYTES) == BOUND - size and a.exists()
    with store.pin_used("study"):
        build(store, "a")
        assert store.free_up(BOUND) == BOUND - size and store.free_up(2 * BOUND) == BOUND - size
    assert store.free_up(BOUND) == BOUND and not a.exists()
    assert Store(tmp_path).free_up(BOUND) == BOUND


def test_a_use_is_marked_once_a_minute(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mark = build(store, "a") / ".used"
    mark.unlink()
    build(store, "a")
    assert not mark.exists()
    build(Store(tmp_path), "a")
    assert mark.exists()


def test_a_full_disk_can_be_freed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "512k") as disk:
        layout = StoreLayout(disk / "store")
        a = build(Store(layout.root), "a")
        fill(disk)
        assert delete_artifact(layout, artifact_of(a)) and not a.exists()
        assert not list(layout.tmp.iterdir()) and not list(layout.lock_files.iterdir())
