from pathlib import Path

import pytest

from gitdist.store import Store
from gitdist.store.gc import delete_artifact
from gitdist.store.layout import StoreLayout
from gitdist.store.locks import heartbeat
from gitdist.store.pins import PIN_STALE_S, Pin, pinned
from tests.store.things import age, artifact_of, build, build_each
from tests.waiting import until


def test_what_a_running_study_uses_stays_whether_it_got_it_before_or_in_the_block(tmp_path: Path) -> None:
    study = Store(tmp_path)
    a = build(study, "a")
    with study.pin_used("first-study"):
        b = build(study, "b")
        (c,) = build_each(tmp_path, "c")
        for path in (a, b):
            age(path, 5000)
        d = build(Store(tmp_path, max_bytes=1), "d")
        assert [path.exists() for path in (a, b, c, d)] == [True, True, False, True]
        assert pinned(StoreLayout(tmp_path))[f"thing-{a.name}"] == {"first-study"}
    assert not list((tmp_path / "holds").iterdir())
    build(Store(tmp_path, max_bytes=1), "e")
    assert not any(path.exists() for path in (a, b, d))


def test_a_pin_that_cannot_be_deleted_ends_no_study(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.pin_used("study"):
        build(store, "a")
        (pin,) = (tmp_path / "holds").glob("*.json")
        pin.unlink()
        pin.mkdir()


def test_two_studies_of_one_process_have_their_own_pins(tmp_path: Path) -> None:
    store, layout = Store(tmp_path), StoreLayout(tmp_path)
    with store.pin_used("one"):
        with store.pin_used("two"):
            a = build(store, "a")
            assert pinned(layout) == {f"thing-{a.name}": {"one", "two"}}
        assert pinned(layout) == {f"thing-{a.name}": {"one"}}


def test_the_pin_of_a_dead_process_counts_no_more(tmp_path: Path) -> None:
    study = Store(tmp_path)
    with study.pin_used("dead"):
        a = build(study, "a")
        (pin,) = (tmp_path / "holds").iterdir()
        age(a, 1000)
        age(pin, PIN_STALE_S - 60)
        build(Store(tmp_path, max_bytes=1), "b")
        assert a.exists()
        age(pin, 120)
        build(Store(tmp_path, max_bytes=1), "c")
        assert not a.exists()


def test_a_pin_is_renewed_and_comes_back_if_it_was_deleted(tmp_path: Path) -> None:
    store, layout = Store(tmp_path), StoreLayout(tmp_path)
    pin = Pin(layout, "study")
    pin.add([artifact_of(build(store, "a"))])
    (file,) = layout.pins.iterdir()
    age(file, PIN_STALE_S + 60)
    assert not pinned(layout)
    with heartbeat(pin.renew, 0.01):
        until(lambda: pinned(layout))
        file.unlink()
        until(file.exists)
    pin.release()
    assert not pinned(layout)


def test_an_artifact_that_was_deleted_between_two_uses_is_built_again(tmp_path: Path) -> None:
    study, layout = Store(tmp_path), StoreLayout(tmp_path)
    a = build(study, "a")
    assert delete_artifact(layout, artifact_of(a))
    assert study.find("thing", {"name": "a"}) is None
    with study.pin_used("study"):
        assert build(study, "a") == a and a.exists()
        assert not delete_artifact(layout, artifact_of(a))


@pytest.mark.parametrize("content", ["", "[]", '{"name": "study", "artefacts": 5}'])
def test_a_pin_that_cannot_be_read_keeps_everything_until_it_is_stale(tmp_path: Path, content: str) -> None:
    store, layout = Store(tmp_path), StoreLayout(tmp_path)
    a = build(store, "a")
    pin = layout.pins / "1.json"
    pin.write_text(content)
    assert not delete_artifact(layout, artifact_of(a))
    age(pin, PIN_STALE_S + 60)
    assert delete_artifact(layout, artifact_of(a))
