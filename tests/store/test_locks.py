import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitdist.store import Store
from gitdist.store.artifact import FileStamp
from gitdist.store.file_tree import FileTree
from gitdist.store.locks import BuildLock, LockFiles, heartbeat
from tests.object_store import ObjectStore
from tests.processes import forkserver
from tests.store.things import NAME, SPEC, lock_files
from tests.waiting import until

NEVER_S = 1e9
FORKS = forkserver("gitdist.store")


def lock_of(host: str, *roots: Path | FileTree, stale_s: float = NEVER_S, name: str = "thing") -> BuildLock:
    """The lock of a process on a host, whose file locks other hosts do not see."""
    for directory in (host, *roots):
        if not isinstance(directory, FileTree):
            Path(directory).mkdir(exist_ok=True)
    trees = [root if isinstance(root, FileTree) else FileTree.local(root) for root in roots]
    return BuildLock(Path(host) / name, [LockFiles(tree, stale_s) for tree in trees])


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def held_when_free(lock: BuildLock) -> Iterator[None]:
    assert lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held(lock: BuildLock) -> Iterator[None]:
    assert lock.acquire(blocking=False)
    try:
        yield
    finally:
        lock.release()


@pytest.mark.parametrize("where", ["directory", "object store"])
def test_hosts_have_the_lock_one_after_the_other(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    """Half of them wait for it, the others try until they have it."""
    holders: list[int] = []
    counts, done = [], []
    if where == "directory":
        tree, num_turns = FileTree.local(tmp_path), 4
    else:
        store: ObjectStore = request.getfixturevalue("object_store")
        tree, num_turns = FileTree.of_uri(store.uri), 1

    def contend(number: int) -> None:
        lock = lock_of(f"host-{number}", tree)
        for _ in range(num_turns):
            while not lock.acquire(blocking=number % 2 == 0):
                time.sleep(0.001 * number)
            holders.append(number)
            counts.append(len(holders))
            os.sched_yield()
            holders.remove(number)
            lock.release()
            done.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(done) == sorted(list(range(4)) * num_turns)
    assert max(counts) == 1 and not tree.files("claims")


def test_other_artifacts_have_other_locks(tmp_path: Path) -> None:
    locks = [lock_of("host", tmp_path, name=name) for name in ("thing-1", "thing-2", "thing-11")]
    with held(locks[0]), held(locks[1]), held(locks[2]):
        assert len(lock_files(tmp_path)) == 3


def acquire_and_hang(host: str, *roots: Path) -> None:
    lock = lock_of(host, *roots, stale_s=0.5)
    lock.acquire()
    (Path(host).parent / "acquired").touch()
    signal.pause()


@contextmanager
def other_holder(host: str, *roots: Path) -> Iterator[Callable[[signal.Signals], None]]:
    """Have a process hold the lock; lend the function that sends it a signal."""
    process = FORKS.Process(target=acquire_and_hang, args=(host, *roots))
    process.start()
    until((Path(host).parent / "acquired").exists)
    try:
        yield lambda number: os.kill(process.pid or 0, number)
    finally:
        process.kill()
        process.join(60)


def test_the_lock_of_a_killed_process_is_free_at_once_on_its_host(tmp_path: Path) -> None:
    roots = (tmp_path / "here", tmp_path / "shared")
    lock = lock_of(f"{tmp_path}/host", *roots)
    with other_holder(f"{tmp_path}/host", *roots) as send:
        assert not lock.acquire(blocking=False)
        send(signal.SIGKILL)
        until(lambda: lock.acquire(blocking=False), limit_s=10)
        assert [len(lock_files(root)) for root in roots] == [1, 1]
        lock.release()


def test_the_lock_of_a_killed_process_of_another_host_becomes_stale(tmp_path: Path) -> None:
    lock = lock_of("another", tmp_path, stale_s=0.5)
    with other_holder(f"{tmp_path}/host", tmp_path) as send:
        (left,) = lock_files(tmp_path)
        for _ in range(20):  # it is alive
            assert not lock.acquire(blocking=False)
            time.sleep(0.05)
        send(signal.SIGKILL)
        with held_when_free(lock):
            assert left not in lock_files(tmp_path)


def test_a_stopped_process_loses_the_lock_even_on_its_host(tmp_path: Path) -> None:
    with other_holder(f"{tmp_path}/host", tmp_path) as send:
        send(signal.SIGSTOP)
        with held_when_free(lock_of("host", tmp_path, stale_s=0.5)):
            send(signal.SIGCONT)
            time.sleep(0.3)
            assert len(lock_files(tmp_path)) == 1  # the stopped one does not write its own again


@pytest.mark.parametrize("content", ["", "[]", '{"ticket": 1'])
def test_any_file_in_the_way_is_waited_for_until_it_is_stale(tmp_path: Path, content: str) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "thing.abc").write_text(content)
    began = time.monotonic()
    with held_when_free(lock_of("host", tmp_path, stale_s=0.3)):
        assert time.monotonic() - began >= 0.3
        assert len(lock_files(tmp_path)) == 1


def test_a_file_is_stale_once_it_was_seen_unchanged_for_long_enough(tmp_path: Path) -> None:
    files = LockFiles(FileTree.local(tmp_path), stale_s=60)
    one, two = FileStamp(1, 1), FileStamp(1, 2)
    assert not any(files.is_stale("a", one, now) for now in (0.0, 14.0, 28.0, 42.0, 56.0))
    assert not files.is_stale("a", two, 69.0)
    assert not any(files.is_stale("a", two, now) for now in (84.0, 99.0, 114.0))
    assert not files.is_stale("b", two, 129.0)
    assert files.is_stale("a", two, 129.0)


def test_an_observer_that_was_stopped_has_not_watched_meanwhile(tmp_path: Path) -> None:
    files = LockFiles(FileTree.local(tmp_path), stale_s=60)
    assert not files.is_stale("a", FileStamp(1, 1), 0.0)
    assert not files.is_stale("a", FileStamp(1, 1), 100_000.0)
    assert not files.is_stale("a", FileStamp(1, 2), 200_000.0)


def wait_for_lock(root: Path, shared: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        store = Store(root, shared=str(shared))
        (root / "waiting").touch()
        store.get_or_build("thing", SPEC, lambda *_: None)
    except KeyboardInterrupt:
        os._exit(7)


@pytest.mark.parametrize("root", ["here", "there"])
def test_waiting_can_be_interrupted(tmp_path: Path, root: str) -> None:
    shared = tmp_path / "shared"
    with Store(tmp_path / "here", shared=str(shared)).lock("thing", SPEC, blocking=False):
        process = FORKS.Process(target=wait_for_lock, args=(tmp_path / root, shared))
        process.start()
        until((tmp_path / root / "waiting").exists)
        time.sleep(0.3)
        assert process.is_alive()
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 7
        assert len(lock_files(shared)) == 1
    assert not lock_files(shared) and (tmp_path / "here" / "locks" / NAME).exists()


def test_a_heart_beats_until_the_block_ends_and_survives_errors() -> None:
    beats: list[float] = []

    def beat() -> None:
        beats.append(time.monotonic())
        raise OSError("out of reach")

    with heartbeat(beat, 0.01):
        until(lambda: len(beats) >= 3)
    count = len(beats)
    time.sleep(0.1)
    assert len(beats) == count
