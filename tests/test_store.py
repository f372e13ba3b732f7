import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gitdist.errors import DiskError, StoreError
from gitdist.store import Store, canonical_json, content_key
from tests.disks import small_disk

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


def without_checksums(file: Path) -> None:
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "checksums": {}}))


def of_another(file: Path) -> None:
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "spec": {"data": "other"}}))


@pytest.mark.parametrize("damage", [without_checksums, of_another, lambda file: file.write_text("[]")])
def test_a_manifest_that_is_not_this_artefacts_is_damage(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    place = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    damage(place / "artefact.json")
    assert Store(tmp_path).find("thing", SPEC) is None
    assert value_of(Store(tmp_path).get_or_build("thing", SPEC, write_value)) == "whole"


def test_a_file_too_many_is_damage_and_a_hidden_one_is_not(tmp_path: Path) -> None:
    place = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    (place / ".DS_Store").touch()
    assert Store(tmp_path).find("thing", SPEC) == place
    (place / "more.txt").touch()
    assert Store(tmp_path).find("thing", SPEC) is None


@pytest.mark.parametrize("damage", [change, cut_short, Path.unlink])
def test_damage_after_the_first_use_is_seen_by_the_same_process(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = Store(tmp_path)
    place = store.get_or_build("thing", SPEC, write_value)
    damage(place / "part" / "value.txt")
    assert store.find("thing", SPEC) is None
    assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"
    assert store.find("thing", SPEC) == place


def test_scratch_of_a_builder_killed_just_after_it_succeeded_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    place = store.get_or_build("thing", SPEC, write_value)
    scratch = tmp_path / "work" / f"thing-{place.name}"
    scratch.mkdir()
    (scratch / "checkpoint").touch()
    store.get_or_build("thing", SPEC, refuse)
    assert not scratch.exists()


def write_text(target: Path, scratch: Path) -> None:
    (target / "a").write_bytes(bytes(600_000))


def write_array(target: Path, scratch: Path) -> None:
    np.save(target / "a.npy", np.zeros(600_000, np.uint8))


def write_table(target: Path, scratch: Path) -> None:
    batch = pa.record_batch({"a": np.zeros(600_000, np.uint8)})
    with pa.OSFile(str(target / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


@pytest.mark.parametrize("write", [write_text, write_array, write_table])
def test_a_full_disk_while_building_names_the_artefact_and_leaves_nothing_half_made(
    tmp_path: Path, write: Callable[[Path, Path], None]
) -> None:
    def build(target: Path, scratch: Path) -> None:
        (scratch / "checkpoint").write_text("step 5")
        write(target, scratch)

    with small_disk(tmp_path / "disk", "512k") as disk:
        store = Store(disk)
        place = disk / "thing" / content_key("thing", SPEC)
        with pytest.raises(DiskError) as caught:
            store.get_or_build("thing", SPEC, build)
        assert str(caught.value).startswith(f"the disk must hold {place}, but says: No space left on device; free")
        assert not place.exists() and not list((disk / "tmp").iterdir())
        assert (disk / "work" / f"thing-{place.name}" / "checkpoint").read_text() == "step 5"
        assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"
