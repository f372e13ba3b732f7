import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from gitdist.cli.store import collect_garbage, list_artifacts
from gitdist.store import Store
from tests.cli.test_errors import assert_refused, gitdist

DATA = {
    "format": 1,
    "digest": "0",
    "nuisance": "background",
    "profile": {"kind": "zipf", "exponent": 2.0},
    "version": 0,
}
GENERATOR = {"kind": "munit", "steps": 2000, "data": "0"}
DAY_S = 86_400


def write(target: Path, scratch: Path) -> None:
    (target / "data").write_bytes(bytes(50_000))


def age(path: Path, seconds: float) -> None:
    for file in (*path.rglob("*"), path):
        then = file.stat().st_mtime - seconds
        os.utime(file, (then, then))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path / "store")
    age(store.get_or_build("dataset", DATA, write), 40 * DAY_S)
    age(store.get_or_build("generator", GENERATOR, write), 3 * DAY_S)
    return tmp_path


def listed(results: Path) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    list_artifacts(results, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def collected(results: Path, **options: object) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    collect_garbage(results, console, **{"max_gb": None, "unused_days": None, "dry_run": False} | options)  # type: ignore[arg-type]
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def kinds(results: Path) -> list[str]:
    return [line.split()[0] for line in listed(results)[1:-1]]


def test_ls_shows_the_least_recently_used_first(results: Path) -> None:
    store = Store(results / "store")
    found = store.find("generator", GENERATOR)
    assert found is not None
    with store.pin_used("my-study"):
        header, dataset, generator, total = listed(results)
    assert header.split() == ["kind", "key", "size", "unused", "for", "used", "by", "what", "it", "is"]
    assert "40 days" in dataset and "background, zipf, version 0" in dataset and "50." in dataset
    assert generator.split()[:2] == ["generator", found.name]
    assert "0 s" in generator and "my-study" in generator and "munit, steps 2000" in generator
    assert total.startswith("2 artifacts, 10")


def test_ls_describes_a_prefix_by_its_trial_and_its_own_length(results: Path) -> None:
    trial = {"network": "resnet20", "loss": "ldam", "lr": 0.1, "epochs": 161, "seed": 3}
    Store(results / "store").get_or_build("prefix", {"data": "0", "trial": trial, "epochs": 160}, write)
    assert listed(results)[-2].rstrip().endswith("resnet20, ldam, lr 0.1, epochs 160, seed 3")


def test_gc_without_options_deletes_only_what_dead_processes_left(results: Path) -> None:
    store = results / "store"
    key = "0" * 20
    rubbish = [
        store / "tmp" / f"damaged-thing-{key}.abc",
        store / "tmp" / f"thing-{key}.0123",
        store / "work" / f"thing-{key}",
        store / "tmp" / f"fetched-thing-{key}.0123",
    ]
    kept = [store / "tmp" / f"thing-{key}.4567", store / "work" / f"thing-{'1' * 20}"]
    for path in (*rubbish, *kept):
        path.mkdir()
        (path / "file").write_bytes(bytes(1000))
    blocks = store / "blocks" / ("0" * 20)
    halves = [blocks / f".0-1-2.block.{number}.tmp" for number in range(2)]
    for path in (blocks / "0-1-1.block", *halves):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    dead, alive = store / "claims" / f"thing-{key}.1.2", store / "holds" / "0.json"
    for path in (dead, alive):
        path.write_text("x")
    rubbish, kept = [*rubbish, halves[0], dead], [*kept, halves[1], blocks / "0-1-1.block", alive]
    for path in rubbish[:2] + rubbish[3:]:
        age(path, 4000)
    age(rubbish[2], 31 * DAY_S)
    age(kept[0], 3000)
    age(kept[1], 29 * DAY_S)
    told = collected(results, dry_run=True)
    assert all(path.exists() for path in (*rubbish, *kept))
    assert collected(results)[:-1] == told[:-1] and len(told) == 7
    assert f"unfinished or damaged artifact tmp/damaged-thing-{key}.abc: 1.0 kB" in told
    assert told[-1] == "would delete 6 items, 5.0 kB"
    assert not list((store / "locks").glob("fetched-*"))
    assert not any(path.exists() for path in rubbish) and all(path.exists() for path in kept)
    assert kinds(results) == ["dataset", "generator", "blocks"]
    assert collected(results) == ["deleted 0 items, 0 bytes"]


def test_gc_leaves_the_scratch_and_the_target_of_a_living_builder(results: Path) -> None:
    store = Store(results / "store")

    def build(target: Path) -> None:
        (target / "half").touch()
        age(target, 31 * DAY_S)
        assert collected(results, max_gb=0.0)[-1].startswith("deleted 2 items")
        assert (target / "half").exists() and artifact.scratch.exists()

    with store.lock("thing", {}, blocking=False) as artifact:
        assert artifact is not None
        age(artifact.scratch, 31 * DAY_S)
        artifact.publish(build)


def test_gc_deletes_what_was_not_used_for_long(results: Path) -> None:
    assert [line.split()[0] for line in collected(results, unused_days=10, dry_run=True)] == ["artifact", "would"]
    assert kinds(results) == ["dataset", "generator"]
    collected(results, unused_days=10)
    assert kinds(results) == ["generator"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_gc_keeps_the_limit_and_counts_what_its_age_deleted(results: Path, dry_run: bool) -> None:
    told = collected(results, max_gb=60e-6, unused_days=10, dry_run=dry_run)
    assert len(told) == 2 and "dataset/" in told[0]
    assert kinds(results) == (["dataset", "generator"] if dry_run else ["generator"])
    collected(results, max_gb=0.0)
    assert not kinds(results)
    assert listed(results) == ["0 artifacts, 0 bytes"]


def test_a_results_directory_without_a_store(tmp_path: Path) -> None:
    for command in ("ls", "gc"):
        assert_refused(gitdist("store", command, "--results", tmp_path / "none"), "no store", "--results")
    assert not (tmp_path / "none").exists()


def test_the_commands_from_a_terminal(results: Path) -> None:
    done = gitdist("store", "gc", "--results", results, "--max-gb", "0", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("would delete 2 items, 10")


@pytest.mark.parametrize("option", ["--max-gb", "--unused-days"])
def test_a_limit_is_a_number(results: Path, option: str) -> None:
    assert_refused(gitdist("store", "gc", "--results", results, option, "inf"), option, "inf")
