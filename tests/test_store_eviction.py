import os
import pickle
from pathlib import Path

from gitdist.disk import locked
from gitdist.store import Store, content_key
from gitdist.store.eviction import make_room, remove
from gitdist.store.holds import HOLD_STALE_S, holders
from gitdist.store.inventory import take_inventory
from gitdist.store.keys import ArtefactId
from gitdist.store.layout import Layout

BYTES = 10_000
BOUND = 25_000  # two artefacts and a half


def write_bytes(target: Path, scratch: Path) -> None:
    (target / "data").write_bytes(bytes(BYTES))


def make(store: Store, name: str) -> Path:
    return store.get_or_build("thing", {"name": name}, write_bytes)


def age(place: Path, seconds: float) -> None:
    """Make a directory with its files look unused for so long."""
    for file in (*place.rglob("*"), place):
        then = file.stat().st_mtime - seconds
        os.utime(file, (then, then))


def made(root: Path, *names: str) -> list[Path]:
    """Build artefacts, the first of them unused for longest, as another process would."""
    places = [make(Store(root), name) for name in names]
    for index, place in enumerate(places):
        age(place, 1000 - 100 * index)
    return places


def test_the_artefact_unused_for_longest_goes_first(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", "b")
    make(Store(tmp_path), "a")
    store = Store(tmp_path, max_bytes=BOUND)
    c = make(store, "c")
    assert (a.exists(), b.exists(), c.exists()) == (True, False, True)
    assert not list((tmp_path / "tmp").iterdir())
    assert make(store, "b") == b and b.exists()


def test_without_a_bound_nothing_goes(tmp_path: Path) -> None:
    assert all(place.exists() for place in made(tmp_path, *"abcd"))


def test_what_was_just_built_stays_however_large(tmp_path: Path) -> None:
    (a,) = made(tmp_path, "a")
    b = make(Store(tmp_path, max_bytes=1), "b")
    assert b.exists() and not a.exists()


def test_what_a_running_study_holds_stays_whether_it_got_it_before_or_in_the_block(tmp_path: Path) -> None:
    study = Store(tmp_path)
    a = make(study, "a")
    with study.holding("first-study"):
        b = make(study, "b")
        (c,) = made(tmp_path, "c")
        for place in (a, b):
            age(place, 5000)
        d = make(Store(tmp_path, max_bytes=1), "d")
        assert [place.exists() for place in (a, b, c, d)] == [True, True, False, True]
        assert holders(tmp_path / "holds")[f"thing-{a.name}"] == {"first-study"}
    assert not list((tmp_path / "holds").iterdir())
    make(Store(tmp_path, max_bytes=1), "e")
    assert not any(place.exists() for place in (a, b, d))


def test_a_hold_that_the_disk_does_not_let_go_ends_no_study(tmp_path: Path) -> None:
    with Store(tmp_path).holding("study"):
        (hold,) = (tmp_path / "holds").glob("*.json")
        hold.unlink()
        hold.mkdir()


def test_two_studies_of_one_process_hold_by_themselves(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.holding("one"):
        with store.holding("two"):
            a = make(store, "a")
            assert holders(tmp_path / "holds") == {f"thing-{a.name}": {"one", "two"}}
        assert holders(tmp_path / "holds") == {f"thing-{a.name}": {"one"}}


def test_the_hold_of_a_dead_process_counts_no_more(tmp_path: Path) -> None:
    study = Store(tmp_path)
    with study.holding("dead"):
        a = make(study, "a")
        (hold,) = (tmp_path / "holds").iterdir()
        age(a, 1000)
        age(hold, HOLD_STALE_S - 60)
        make(Store(tmp_path, max_bytes=1), "b")
        assert a.exists()
        age(hold, 120)
        make(Store(tmp_path, max_bytes=1), "c")
        assert not a.exists()


def test_an_artefact_removed_between_two_uses_is_built_again(tmp_path: Path) -> None:
    study = Store(tmp_path)
    a = make(study, "a")
    assert remove(Layout(tmp_path), ArtefactId("thing", a.name))
    assert study.find("thing", {"name": "a"}) is None
    with study.holding("study"):
        assert make(study, "a") == a and a.exists()
        assert not remove(Layout(tmp_path), ArtefactId("thing", a.name))


def test_what_is_being_built_here_or_on_another_host_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (a,) = made(tmp_path, "a")
    artefact = ArtefactId("thing", a.name)
    with locked(layout.lock(str(artefact))):
        assert not remove(layout, artefact)
    claim = layout.claims / f"{artefact}.0123"
    claim.touch()
    assert not remove(layout, artefact)
    age(claim, 7200)
    assert remove(layout, artefact)


def test_a_directory_that_grows_is_one_artefact_used_when_it_last_grew(tmp_path: Path) -> None:
    store, (a, b) = Store(tmp_path), made(tmp_path, "a", "b")
    key = content_key("blocks", {"stream": 1})
    blocks = tmp_path / "blocks" / key
    (blocks / "class-0").mkdir(parents=True)
    (blocks / "class-0" / "0.arrow").write_bytes(bytes(BYTES))
    age(blocks, 950)
    assert [entry.artefact.kind for entry in take_inventory(Layout(tmp_path))] == ["thing", "blocks", "thing"]
    (blocks / "class-0" / "1.arrow").write_bytes(bytes(BYTES))
    entries = take_inventory(Layout(tmp_path))
    assert [entry.artefact for entry in entries][-1] == ArtefactId("blocks", key)
    assert entries[-1].num_bytes >= 2 * BYTES
    age(blocks, 5000)
    with store.holding("study"):
        store.use("blocks", key)
        age(blocks, 5000)
        removed, room = make_room(Layout(tmp_path), 0)
        assert room == -entries[-1].num_bytes  # but for the mark of its use, which is empty
    assert {entry.artefact.key for entry in removed} == {a.name, b.name}
    assert [entry.artefact.key for entry in make_room(Layout(tmp_path), 0)[0]] == [key] and not blocks.exists()


def test_use_is_marked_once_a_minute(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mark = make(store, "a") / ".used"
    mark.unlink()
    make(store, "a")
    assert not mark.exists()
    make(Store(tmp_path), "a")
    assert mark.exists()


def test_a_store_travels_with_its_settings(tmp_path: Path) -> None:
    store = Store(tmp_path / "here", max_bytes=1, shared=str(tmp_path / "shared"), stale_s=5.0)
    copy = pickle.loads(pickle.dumps(store))
    settings = (copy.root, copy.max_bytes, copy.shared, copy.stale_s)
    assert settings == (tmp_path / "here", 1, str(tmp_path / "shared"), 5.0)
