import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from gitdist.errors import StoreError
from gitdist.store import Store
from gitdist.store.artifact import ArtifactId
from gitdist.store.file_tree import FileTree
from gitdist.store.shared import SharedStore
from tests.processes import forkserver
from tests.store.things import KEY, NAME, SPEC, is_empty, lock_files, refuse, value_of, write_value
from tests.waiting import until

FORKS = forkserver("gitdist.store")


def test_what_one_store_builds_another_fetches(tmp_path: Path) -> None:
    shared = f"file://{tmp_path}/shared"
    here = Store(tmp_path / "here", shared=shared).get_or_build("thing", SPEC, write_value)
    there = Store(tmp_path / "there", shared=shared).get_or_build("thing", SPEC, refuse)
    assert there == tmp_path / "there" / "thing" / KEY and value_of(there) == "whole"
    assert (there / "artefact.json").read_bytes() == (here / "artefact.json").read_bytes()
    assert value_of(Store(tmp_path / "third", shared=shared).find("thing", SPEC)) == "whole"
    for root in ("here", "there", "third"):
        assert is_empty(tmp_path / root)


def change(artifact: Path) -> None:
    (artifact / "part" / "value.txt").write_text("Whole")


def lose(artifact: Path) -> None:
    (artifact / "part" / "value.txt").unlink()


def cut_manifest(artifact: Path) -> None:
    (artifact / "artefact.json").write_bytes((artifact / "artefact.json").read_bytes()[:-9])


def point_outside(artifact: Path) -> None:
    manifest = json.loads((artifact / "artefact.json").read_text())
    manifest["checksums"]["../../../outside"] = "0"
    (artifact / "artefact.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [change, lose, cut_manifest, point_outside])
def test_a_damaged_shared_artifact_is_built_again_and_replaced(tmp_path: Path, damage: object) -> None:
    shared = tmp_path / "shared"
    Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, write_value)
    damage(shared / "thing" / KEY)  # type: ignore[operator]
    there = Store(tmp_path / "there", shared=str(shared))
    assert there.find("thing", SPEC) is None
    assert value_of(there.get_or_build("thing", SPEC, write_value)) == "whole"
    assert value_of(Store(tmp_path / "third", shared=str(shared)).get_or_build("thing", SPEC, refuse)) == "whole"
    assert not list(tmp_path.rglob("outside")) and not list((tmp_path / "there" / "tmp").iterdir())


def test_a_damaged_artifact_here_is_replaced_by_the_shared_one(tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    change(Store(tmp_path / "here", shared=shared).get_or_build("thing", SPEC, write_value))
    assert value_of(Store(tmp_path / "here", shared=shared).get_or_build("thing", SPEC, refuse)) == "whole"
    assert len(list((tmp_path / "here" / "tmp").glob("damaged-thing-*"))) == 1


def test_a_half_uploaded_artifact_is_missing_and_its_store_completes_it(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, write_value)
    (shared / "thing" / KEY / "artefact.json").unlink()
    assert Store(tmp_path / "there", shared=str(shared)).find("thing", SPEC) is None
    Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, refuse)
    assert value_of(Store(tmp_path / "there", shared=str(shared)).get_or_build("thing", SPEC, refuse)) == "whole"


def test_a_lost_file_of_a_shared_artifact_is_put_back_by_a_store_that_has_it_whole(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, write_value)
    lose(shared / "thing" / KEY)
    Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, refuse)
    assert value_of(Store(tmp_path / "there", shared=str(shared)).find("thing", SPEC)) == "whole"


def test_a_builder_that_was_taken_for_dead_uses_the_artifact_that_came_first(tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    other = Store(tmp_path / "other").get_or_build("thing", SPEC, write_value)

    def build(target: Path, scratch: Path) -> None:
        SharedStore(FileTree.of_uri(shared), 60.0).upload(ArtifactId("thing", KEY), other)
        write_value(target, scratch)
        (target / "part" / "value.txt").write_text("late")

    here = Store(tmp_path / "here", shared=shared)
    assert value_of(here.get_or_build("thing", SPEC, build)) == "whole"
    assert value_of(Store(tmp_path / "there", shared=shared).find("thing", SPEC)) == "whole"
    assert is_empty(tmp_path / "here")


def test_what_was_built_before_there_was_a_shared_store_is_uploaded(tmp_path: Path) -> None:
    Store(tmp_path / "here").get_or_build("thing", SPEC, write_value)
    Store(tmp_path / "here", shared=str(tmp_path / "shared")).get_or_build("thing", SPEC, refuse)
    assert value_of(tmp_path / "shared" / "thing" / KEY) == "whole"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("/proc/none/shared", "/proc/none/shared"),
        ("/dev/null/shared", "/dev/null/shared"),
        ("bogus://user:word@place/x", "bogus://user:***@place/x"),
    ],
)
def test_a_shared_store_that_cannot_be_reached_is_one_line(tmp_path: Path, uri: str, words: str) -> None:
    with pytest.raises(StoreError, match="store.uri") as caught:
        Store(tmp_path, shared=uri)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "word@" not in str(caught.value)


def test_the_loss_of_the_shared_store_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    store = Store(tmp_path / "here", shared=str(shared))
    shutil.rmtree(shared)
    with pytest.raises(StoreError, match=f"the shared store {shared} must be reachable"):
        store.get_or_build("thing", SPEC, refuse)
    assert not shared.exists()


def test_an_artifact_whose_upload_fails_is_in_place_and_uploaded_later(tmp_path: Path) -> None:
    shared = tmp_path / "shared"

    def build(target: Path, scratch: Path) -> None:
        write_value(target, scratch)
        shutil.rmtree(shared)

    with pytest.raises(StoreError, match="run the same command again"):
        Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, build)
    assert not list((tmp_path / "here" / "work").iterdir())
    Store(tmp_path / "here", shared=str(shared)).get_or_build("thing", SPEC, refuse)
    assert value_of(shared / "thing" / KEY) == "whole"


def build_logged(root: Path, shared: Path, log: Path, gate: Path) -> None:
    def build(target: Path, scratch: Path) -> None:
        with open(log, "a") as file:
            file.write(f"{root.name}\n")
        until((log.parent / "all-here").exists)
        write_value(target, scratch)

    store = Store(root, shared=str(shared))
    (gate / root.name).touch()
    until(lambda: len(list(gate.iterdir())) == 3)
    assert value_of(store.get_or_build("thing", SPEC, build)) == "whole"


def test_stores_that_ask_at_the_same_time_build_once(tmp_path: Path) -> None:
    shared, log, gate = tmp_path / "shared", tmp_path / "log", tmp_path / "gate"
    gate.mkdir()
    roots = [tmp_path / f"root{index}" for index in range(3)]
    processes = [FORKS.Process(target=build_logged, args=(root, shared, log, gate)) for root in roots]
    for process in processes:
        process.start()
    until(lambda: all((root / "locks" / NAME).exists() for root in roots) and log.exists())
    (tmp_path / "all-here").touch()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert len(log.read_text().splitlines()) == 1
    assert all(value_of(root / "thing" / KEY) == "whole" for root in roots)


def build_and_hang(root: Path, shared: Path) -> None:
    def build(target: Path, scratch: Path) -> None:
        (root / "begun").touch()
        time.sleep(600)

    Store(root, shared=str(shared)).get_or_build("thing", SPEC, build)


def test_a_killed_builder_of_another_store_is_replaced(tmp_path: Path) -> None:
    here, shared = tmp_path / "here", tmp_path / "shared"
    process = FORKS.Process(target=build_and_hang, args=(here, shared))
    process.start()
    until((here / "begun").exists)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    assert len(lock_files(shared)) == 1
    there = Store(tmp_path / "there", shared=str(shared), stale_s=0.5)
    assert value_of(there.get_or_build("thing", SPEC, write_value)) == "whole"
    assert not list((shared / "claims").iterdir())
    assert value_of(Store(here, shared=str(shared)).get_or_build("thing", SPEC, refuse)) == "whole"
