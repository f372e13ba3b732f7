import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitdist.store import Store, content_key
from gitdist.store.claims import Board, Watch
from gitdist.store.place import Place
from tests.processes import forkserver
from tests.waiting import until

SPEC = {"data": "digits"}
NEVER_S = 1e9
FORKS = forkserver("gitdist.store")


def write_value(target: Path) -> None:
    (target / "value.txt").write_text("whole")


def claims_of(root: Path) -> list[Path]:
    return list((root / "claims").glob("thing-*"))


def test_contenders_whom_no_lock_joins_have_their_turns_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []
    most, turns = [], []

    def contend(number: int) -> None:
        board = Board(Place.local(tmp_path), NEVER_S)
        for _ in range(4):
            with board.turn("thing", f"lock of host {number}"):
                inside.append(number)
                most.append(len(inside))
                os.sched_yield()
                inside.remove(number)
            turns.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(turns) == sorted(list(range(5)) * 4)
    assert max(most) == 1
    assert not claims_of(tmp_path)


def test_other_artefacts_do_not_wait(tmp_path: Path) -> None:
    board = Board(Place.local(tmp_path), NEVER_S)
    with board.turn("thing-1", "a"), board.turn("thing-2", "b"), board.turn("thing-11", "c"):
        assert len(claims_of(tmp_path)) == 3


def leave_claim(root: Path, lock: str) -> Path:
    """Claim, and die without a word."""
    board = Board(Place.local(root), NEVER_S)
    with board.turn("thing-1", lock):
        (file,) = claims_of(root)
        content = file.read_bytes()
    file.write_bytes(content)
    return file


def test_the_claim_of_one_who_held_the_lock_that_we_hold_is_that_of_a_dead_one(tmp_path: Path) -> None:
    left = leave_claim(tmp_path, "lock of this host")
    with Board(Place.local(tmp_path), NEVER_S).turn("thing-1", "lock of this host"):
        assert left not in claims_of(tmp_path)


def test_a_claim_that_changes_no_more_goes_stale(tmp_path: Path) -> None:
    left = leave_claim(tmp_path, "lock of another host")
    with Board(Place.local(tmp_path), stale_s=0.3).turn("thing-1", "lock of this host"):
        assert left not in claims_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"ticket": 1'])
def test_a_half_written_claim_is_waited_for_until_it_goes_stale(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "thing-1.abc").write_bytes(content)
    looks = []

    class Counting(Place):
        def names(self, directory: str) -> list[str]:
            looks.append(directory)
            return super().names(directory)

    local = Place.local(tmp_path)
    with Board(Counting(local._files, local._root), stale_s=0.3).turn("thing-1", "lock"):
        assert len(looks) > 4
        assert len(claims_of(tmp_path)) == 1


def test_a_waiting_contender_whose_claim_was_taken_for_dead_files_another(tmp_path: Path) -> None:
    order: list[str] = []

    def wait() -> None:
        with Board(Place.local(tmp_path), NEVER_S).turn("thing-1", "lock of another host"):
            order.append("second")

    with Board(Place.local(tmp_path), NEVER_S).turn("thing-1", "lock of this host"):
        (own,) = claims_of(tmp_path)
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: len(claims_of(tmp_path)) == 2)
        (first,) = set(claims_of(tmp_path)) - {own}
        first.unlink()
        until(lambda: len(claims_of(tmp_path)) == 2)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_only_unchanged_content_that_was_watched_long_enough_is_death() -> None:
    watch = Watch(stale_s=60)
    assert all(watch.is_alive("a", b"1", now) for now in (0.0, 14.0, 28.0, 42.0, 56.0))
    assert watch.is_alive("a", b"2", 69.0)
    assert all(watch.is_alive("a", b"2", now) for now in (84.0, 99.0, 114.0))
    assert watch.is_alive("b", b"2", 129.0)
    assert not watch.is_alive("a", b"2", 129.0)


def test_an_observer_that_was_itself_stopped_has_not_watched_meanwhile() -> None:
    watch = Watch(stale_s=60)
    assert watch.is_alive("a", b"1", 0.0)
    assert watch.is_alive("a", b"1", 100_000.0)
    assert watch.is_alive("a", b"2", 200_000.0)


def test_a_claim_finds_waits_and_puts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("thing", SPEC) as claim:
        assert claim.found is None and not list(claim.scratch.iterdir())
        place = claim.put(write_value)
        assert claim.found == place == store.find("thing", SPEC)
        assert not claim.scratch.exists() and not claims_of(tmp_path)
        with Store(tmp_path).claim("thing", SPEC) as another:  # the turn ended with put, not with the block
            assert another.found == place
    assert not list(store.root.joinpath("tmp").iterdir())


def test_who_does_not_want_to_wait_gets_a_claim_only_where_it_is_free(tmp_path: Path) -> None:
    store, another = Store(tmp_path), Store(tmp_path)
    with store.claim_if_free("thing", SPEC) as claim:
        assert claim is not None and claim.found is None and claim.scratch.exists()
        with another.claim_if_free("thing", SPEC) as second:
            assert second is None
        assert len(claims_of(tmp_path)) == 1
        place = claim.put(write_value)
        with another.claim_if_free("thing", SPEC) as second:
            assert second is not None and second.found == place
    assert not claims_of(tmp_path)


def test_turns_that_are_waited_for_and_such_that_are_not_exclude_each_other(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def contend(number: int) -> None:
        board, done = Board(Place.local(tmp_path), NEVER_S), 0
        while done < 3:
            lock = f"lock of host {number}"
            with board.turn("thing", lock) if number % 2 else board.turn_if_free("thing", lock) as is_mine:
                if is_mine is not False:
                    inside.append(number)
                    most.append(len(inside))
                    os.sched_yield()
                    inside.remove(number)
                    done += 1
            time.sleep(0.001 * number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(most) == 12 and max(most) == 1
    assert not claims_of(tmp_path)


def hold_until_killed(root: Path) -> None:
    with Store(root, stale_s=0.3).claim("thing", SPEC):
        signal.pause()


def test_a_stopped_builder_loses_its_turn_though_it_has_the_lock(tmp_path: Path) -> None:
    store = Store(tmp_path, stale_s=0.3)
    process = FORKS.Process(target=hold_until_killed, args=(tmp_path,))
    process.start()

    def is_free() -> bool:
        with store.claim_if_free("thing", SPEC) as claim:
            return claim is not None

    until(lambda: (tmp_path / "work").joinpath(f"thing-{content_key('thing', SPEC)}").exists())
    assert not is_free()
    os.kill(process.pid or 0, signal.SIGSTOP)
    until(is_free)
    process.kill()
    process.join(60)
    assert is_free()


def test_a_builder_taken_for_dead_finds_what_another_has_put_meanwhile(tmp_path: Path) -> None:
    with Store(tmp_path).claim("thing", SPEC) as late:
        (late.scratch / "part").touch()
        for claim in claims_of(tmp_path):
            claim.unlink()
        with Store(tmp_path).claim_if_free("thing", SPEC) as claim:
            assert claim is not None
            place = claim.put(write_value)
        assert late.put(lambda target: shutil.move(late.scratch / "part", target)) == place
    assert not list((tmp_path / "tmp").iterdir())


def test_finding_an_artefact_claims_and_locks_nothing(tmp_path: Path) -> None:
    place = Store(tmp_path).get_or_build("thing", SPEC, lambda target, _: write_value(target))
    for name in ("claims", "locks"):
        for file in (tmp_path / name).iterdir():
            file.unlink()
    store = Store(tmp_path)
    (tmp_path / "locks" / "probe").unlink()
    assert store.get_or_build("thing", SPEC, lambda *_: pytest.fail("built again")) == place
    assert not list((tmp_path / "claims").iterdir()) and not list((tmp_path / "locks").iterdir())


def trial(store: Store, begun: list[bool]) -> Iterator[int]:
    with store.claim("thing", SPEC) as claim:
        begun.append(claim.found is None)
        for epoch in range(3):
            (claim.scratch / "checkpoint").write_text(str(epoch))
            yield epoch
        claim.put(write_value)


def test_a_generator_that_is_closed_early_passes_its_scratch_on(tmp_path: Path) -> None:
    begun: list[bool] = []
    rows = trial(Store(tmp_path), begun)
    assert (next(rows), next(rows)) == (0, 1)
    rest: list[str | int] = []

    def go_on() -> None:
        with Store(tmp_path).claim("thing", SPEC) as claim:
            rest.append((claim.scratch / "checkpoint").read_text())
        rest.extend(trial(Store(tmp_path), begun))

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join(0.1)
    assert not rest
    rows.close()  # type: ignore[attr-defined]
    thread.join(60)
    assert rest == ["1", 0, 1, 2] and begun == [True, True]
    assert (Store(tmp_path).find("thing", SPEC) or tmp_path).joinpath("value.txt").read_text() == "whole"


def wait_for_turn(root: Path, shared: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Store(root, shared=str(shared)).claim("thing", SPEC):
            pass
    except KeyboardInterrupt:
        os._exit(7)


@pytest.mark.parametrize("root", ["here", "there"])
def test_waiting_can_be_interrupted(tmp_path: Path, root: str) -> None:
    shared = tmp_path / "shared"
    with Store(tmp_path / "here", shared=str(shared)).claim("thing", SPEC):
        process = FORKS.Process(target=wait_for_turn, args=(tmp_path / root, shared))
        process.start()
        place, count = (shared / "claims", 2) if root == "there" else (tmp_path / "here" / "locks", 1)
        until(lambda: len(list(place.glob("thing-*"))) == count)
        until(lambda: is_asleep(process.pid or 0))
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 7
        assert len(claims_of(shared)) == 1


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
