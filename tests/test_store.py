import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gitdist.errors import StoreError
from gitdist.store import Store, canonical_json, content_key, write_atomic

SPEC = {"data": "digits", "version": 0}
SPAWN = multiprocessing.get_context("spawn")


def write_value(target: Path, scratch: Path) -> None:
    (target / "part").mkdir()
    (target / "part" / "value.txt").write_text("whole")


def value_of(place: Path) -> str:
    return (place / "part" / "value.txt").read_text()


def refuse(target: Path, scratch: Path) -> None:
    raise AssertionError("must not be built again")


def build_logged(root: Path, log: Path, barrier: object) -> None:
    def build(target: Path, scratch: Path) -> None:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.2)
        write_value(target, scratch)

    barrier.wait()  # type: ignore[attr-defined]
    assert value_of(Store(root).get_or_build("thing", SPEC, build)) == "whole"


def build_half_and_hang(root: Path) -> None:
    def build(target: Path, scratch: Path) -> None:
        (target / "value.txt").write_text("ha")
        (scratch / "checkpoint").write_text("step 5")
        (root / "half").touch()
        time.sleep(600)

    Store(root).get_or_build("thing", SPEC, build)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the other process did not get there"
        time.sleep(0.01)


def test_an_artefact_is_built_once_and_then_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("thing", SPEC) is None
    place = store.get_or_build("thing", SPEC, write_value)
    assert value_of(place) == "whole"
    for again in (store, Store(tmp_path)):
        assert again.get_or_build("thing", SPEC, refuse) == again.find("thing", SPEC) == place


def test_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    log, barrier = tmp_path / "log", SPAWN.Barrier(4)
    processes = [SPAWN.Process(target=build_logged, args=(tmp_path / "store", log, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_builder_leaves_nothing_half_written_and_the_next_goes_on(tmp_path: Path) -> None:
    process = SPAWN.Process(target=build_half_and_hang, args=(tmp_path,))
    process.start()
    wait_for((tmp_path / "half").exists)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.find("thing", SPEC) is None

    def build(target: Path, scratch: Path) -> None:
        assert not list(target.iterdir())
        assert (scratch / "checkpoint").read_text() == "step 5"
        write_value(target, scratch)

    assert value_of(store.get_or_build("thing", SPEC, build)) == "whole"
    assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "work").iterdir())


def change(file: Path) -> None:
    file.write_text("Whole")


def cut_short(file: Path) -> None:
    file.write_text("who")


@pytest.mark.parametrize("damage", [change, cut_short, Path.unlink])
@pytest.mark.parametrize("name", ["part/value.txt", "artefact.json"])
def test_a_damaged_artefact_is_set_aside_and_built_again(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    place = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    damage(place / name)
    store = Store(tmp_path)
    assert store.find("thing", SPEC) is None
    assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"
    assert len(list((tmp_path / "tmp").glob("damaged-thing-*"))) == 1
    assert Store(tmp_path).find("thing", SPEC) == place


def test_an_artefact_can_be_damaged_and_rebuilt_twice(tmp_path: Path) -> None:
    for _ in range(3):
        place = Store(tmp_path).get_or_build("thing", SPEC, write_value)
        assert value_of(place) == "whole"
        change(place / "part" / "value.txt")


def test_a_failed_build_leaves_nothing_but_its_scratch(tmp_path: Path) -> None:
    def fail(target: Path, scratch: Path) -> None:
        write_value(target, scratch)
        (scratch / "checkpoint").write_text("step 5")
        raise RuntimeError("disk full")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="disk full"):
        store.get_or_build("thing", SPEC, fail)
    assert store.find("thing", SPEC) is None and not list((tmp_path / "tmp").iterdir())
    assert [file.name for file in (tmp_path / "work").rglob("checkpoint")] == ["checkpoint"]
    assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"


def test_the_key_follows_kind_and_spec_and_not_the_order_of_fields() -> None:
    assert content_key("thing", {"a": 1, "b": [1, 2]}) == content_key("thing", {"b": [1, 2], "a": 1})
    keys = {content_key(kind, spec) for kind in ("thing", "other") for spec in ({"a": 1}, {"a": 2}, {"b": 1}, {})}
    assert len(keys) == 8
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})


def test_the_manifest_tells_what_the_artefact_is(tmp_path: Path) -> None:
    place = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    manifest = json.loads((place / "artefact.json").read_text())
    assert (manifest["kind"], manifest["spec"], list(manifest["checksums"])) == ("thing", SPEC, ["part/value.txt"])


def test_a_root_that_cannot_be_a_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="--results DIR") as caught:
        Store(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_an_atomic_write_replaces_the_whole_file_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_atomic(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"new" and [file.name for file in tmp_path.iterdir()] == ["file"]
