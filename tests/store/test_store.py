import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gitdist.errors import DiskError, StoreError
from gitdist.store import Store, content_key
from tests.disks import small_disk
from tests.store.things import (
    KEY,
    NAME,
    SPEC,
    change,
    cut_short,
    is_empty,
    lock_files,
    refuse,
    value_of,
    write_value,
)
from tests.waiting import until

SPAWN = multiprocessing.get_context("spawn")


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


def test_an_artifact_is_built_once_and_then_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("thing", SPEC) is None
    path = store.get_or_build("thing", SPEC, write_value)
    assert path == tmp_path / "thing" / KEY and value_of(path) == "whole"
    for again in (store, Store(tmp_path)):
        assert again.get_or_build("thing", SPEC, refuse) == again.find("thing", SPEC) == path


def test_processes_that_ask_at_the_same_time_build_once(tmp_path: Path) -> None:
    log, barrier = tmp_path / "log", SPAWN.Barrier(4)
    processes = [SPAWN.Process(target=build_logged, args=(tmp_path / "store", log, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_builder_leaves_nothing_half_written_and_the_next_one_resumes(tmp_path: Path) -> None:
    process = SPAWN.Process(target=build_half_and_hang, args=(tmp_path,))
    process.start()
    until((tmp_path / "half").exists)
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
    assert is_empty(tmp_path)


@pytest.mark.parametrize("damage", [change, cut_short, Path.unlink])
@pytest.mark.parametrize("name", ["part/value.txt", "artefact.json"])
def test_a_damaged_artifact_is_moved_aside_and_built_again(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    damage(path / name)
    store = Store(tmp_path)
    assert store.find("thing", SPEC) is None
    assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"
    assert len(list((tmp_path / "tmp").glob("damaged-thing-*"))) == 1
    assert Store(tmp_path).find("thing", SPEC) == path


def test_an_artifact_can_be_damaged_and_rebuilt_twice(tmp_path: Path) -> None:
    for _ in range(3):
        path = Store(tmp_path).get_or_build("thing", SPEC, write_value)
        assert value_of(path) == "whole"
        change(path / "part" / "value.txt")


def test_a_failed_build_leaves_only_its_scratch(tmp_path: Path) -> None:
    def fail(target: Path, scratch: Path) -> None:
        write_value(target, scratch)
        (scratch / "checkpoint").write_text("step 5")
        raise RuntimeError("failed")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="failed"):
        store.get_or_build("thing", SPEC, fail)
    assert store.find("thing", SPEC) is None and is_empty(tmp_path, "tmp", "claims")
    assert [file.name for file in (tmp_path / "work").rglob("checkpoint")] == ["checkpoint"]
    assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"


def test_a_root_that_cannot_be_a_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="results directory") as caught:
        Store(tmp_path / "file")
    assert "\n" not in str(caught.value) and caught.value.remedy == "other_results"


def without_checksums(manifest: str) -> str:
    return manifest.replace('"checksums": {', '"others": {')


def of_another(manifest: str) -> str:
    return manifest.replace("digits", "others")


@pytest.mark.parametrize("damage", [without_checksums, of_another, lambda manifest: "[]"])
def test_a_manifest_that_is_not_this_artifacts_is_damage(tmp_path: Path, damage: Callable[[str], str]) -> None:
    manifest = Store(tmp_path).get_or_build("thing", SPEC, write_value) / "artefact.json"
    manifest.write_text(damage(manifest.read_text()))
    assert Store(tmp_path).find("thing", SPEC) is None
    assert value_of(Store(tmp_path).get_or_build("thing", SPEC, write_value)) == "whole"


def test_a_file_too_many_is_damage_and_a_hidden_one_is_not(tmp_path: Path) -> None:
    path = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    (path / ".DS_Store").touch()
    assert Store(tmp_path).find("thing", SPEC) == path
    (path / "more.txt").touch()
    assert Store(tmp_path).find("thing", SPEC) is None


@pytest.mark.parametrize("damage", [change, cut_short, Path.unlink])
def test_damage_after_the_first_use_is_seen_by_the_same_process(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = Store(tmp_path)
    path = store.get_or_build("thing", SPEC, write_value)
    damage(path / "part" / "value.txt")
    assert store.find("thing", SPEC) is None
    assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"
    assert store.find("thing", SPEC) == path


def write_bytes(target: Path, scratch: Path) -> None:
    (target / "a").write_bytes(bytes(600_000))


def write_array(target: Path, scratch: Path) -> None:
    np.save(target / "a.npy", np.zeros(600_000, np.uint8))


def write_table(target: Path, scratch: Path) -> None:
    batch = pa.record_batch({"a": np.zeros(600_000, np.uint8)})
    with pa.OSFile(str(target / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


@pytest.mark.parametrize("write", [write_bytes, write_array, write_table])
def test_a_full_disk_names_the_artifact_and_leaves_nothing_half_written(
    tmp_path: Path, write: Callable[[Path, Path], None]
) -> None:
    def build(target: Path, scratch: Path) -> None:
        (scratch / "checkpoint").write_text("step 5")
        write(target, scratch)

    with small_disk(tmp_path / "disk", "512k") as disk:
        store = Store(disk)
        path = disk / "thing" / KEY
        with pytest.raises(DiskError, match=f"cannot write {path}: No space left on device"):
            store.get_or_build("thing", SPEC, build)
        assert not path.exists() and is_empty(disk, "tmp", "claims")
        assert (disk / "work" / NAME / "checkpoint").read_text() == "step 5"
        assert value_of(store.get_or_build("thing", SPEC, write_value)) == "whole"


def test_a_lock_is_released_when_the_artifact_is_published(tmp_path: Path) -> None:
    store, another = Store(tmp_path), Store(tmp_path)
    with store.lock("thing", SPEC, blocking=False) as artifact:
        assert artifact is not None and artifact.path is None and not list(artifact.scratch.iterdir())
        with another.lock("thing", SPEC, blocking=False) as second:
            assert second is None
        assert len(lock_files(tmp_path)) == 1
        path = artifact.publish(write_value)
        assert artifact.path == path == store.find("thing", SPEC)
        assert is_empty(tmp_path)
        with another.lock("thing", SPEC, blocking=False) as second:
            assert second is not None and second.path == path


def write_late(target: Path) -> None:
    write_value(target)
    (target / "part" / "value.txt").write_text("late")


def move_from_scratch(target: Path) -> None:
    shutil.move(target.parents[1] / "work" / NAME / "part", target)


@pytest.mark.parametrize("write", [write_late, move_from_scratch])
def test_of_two_builders_the_first_to_rename_wins(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with Store(tmp_path).lock("thing", SPEC, blocking=False) as late:  # stopped, and taken for dead
        assert late is not None
        (late.scratch / "part").mkdir()
        for file in lock_files(tmp_path):
            file.unlink()
        with Store(tmp_path).lock("thing", SPEC, blocking=False) as artifact:
            assert artifact is not None
            path = artifact.publish(write_value)
        assert late.publish(write) == path
    assert value_of(path) == "whole" and is_empty(tmp_path)


def test_finding_an_artifact_locks_nothing(tmp_path: Path) -> None:
    path = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    store = Store(tmp_path)
    for file in (tmp_path / "locks").iterdir():
        file.unlink()
    assert store.get_or_build("thing", SPEC, refuse) == path
    assert is_empty(tmp_path, "claims", "locks")


def epochs(store: Store, begun: list[bool]) -> Iterator[int]:
    with store.lock("thing", SPEC, blocking=False) as artifact:
        assert artifact is not None
        begun.append(artifact.path is None)
        for epoch in range(3):
            (artifact.scratch / "checkpoint").write_text(str(epoch))
            yield epoch
        artifact.publish(write_value)


def test_a_generator_that_is_closed_early_leaves_its_scratch_to_the_next_builder(tmp_path: Path) -> None:
    begun: list[bool] = []
    rows = epochs(Store(tmp_path), begun)
    assert (next(rows), next(rows)) == (0, 1)
    seen: list[str] = []

    def build(target: Path, scratch: Path) -> None:
        seen.append((scratch / "checkpoint").read_text())
        write_value(target)

    thread = threading.Thread(target=Store(tmp_path).get_or_build, args=("thing", SPEC, build))
    thread.start()
    thread.join(0.1)
    assert not seen
    rows.close()  # type: ignore[attr-defined]
    thread.join(60)
    assert seen == ["1"] and begun == [True]
    assert value_of(Store(tmp_path).find("thing", SPEC)) == "whole"


def test_a_store_of_an_older_version_is_used_as_it_is(tmp_path: Path) -> None:
    """It has lock files and pins in another format, left by processes that were killed."""
    path = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    (tmp_path / "claims" / f"{NAME}.0123456789abcdef").write_text('{"ticket": 1, "beat": 7, "lock": "a:1:2"}')
    (tmp_path / "holds" / "0123456789abcdef.json").write_text(f'{{"name": "old", "artefacts": ["{NAME}"]}}')
    (tmp_path / "holds" / "fedcba9876543210.json").write_text("{")
    store = Store(tmp_path, max_bytes=1)
    assert store.get_or_build("thing", SPEC, refuse) == path
    shutil.rmtree(path)
    with store.lock("thing", SPEC, blocking=False) as artifact:
        assert artifact is None
    assert Store(tmp_path, stale_s=0.2).get_or_build("thing", SPEC, write_value) == path
    store.get_or_build("thing", {"data": "others"}, write_value)
    assert path.exists()  # it is pinned


def test_a_store_is_pickled_with_its_settings(tmp_path: Path) -> None:
    store = Store(tmp_path / "here", max_bytes=1, shared=str(tmp_path / "shared"), stale_s=5.0)
    copy = pickle.loads(pickle.dumps(store))
    settings = (copy.root, copy.max_bytes, copy.shared, copy.stale_s)
    assert settings == (tmp_path / "here", 1, str(tmp_path / "shared"), 5.0)
    assert content_key("thing", SPEC) == KEY
