import threading

import pytest

from gitdist.study.monitoring.mlflow import outbox as deliveries
from gitdist.study.monitoring.mlflow.outbox import Outbox
from tests.waiting import until


class Outside:
    """Something that deliveries go to: it can be down, refuse a key, or be slow."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.told: list[str] = []
        self.tries: list[str] = []
        self.down = False
        self.refused: set[str] = set()
        self.tried = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def deliver(self, key: str) -> None:
        self.tries.append(key)
        if not self.open.is_set():
            self.tried.set()
            assert self.open.wait(10)
        if self.down or key in self.refused:
            raise OSError(f"{key} refused")
        self.got.append(key)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(deliveries, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(deliveries, "LONGEST_PAUSE_S", 0.04)


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def delivering(outside):
    opened = Outbox(
        outside.deliver, lambda error: outside.told.append(str(error)), lambda: outside.told.append("recovered")
    )
    yield opened
    outside.open.set()
    opened.close(0.0)


def test_what_is_marked_is_delivered_in_order(outside, delivering):
    delivering.mark("a", "b")
    delivering.mark("c")
    assert delivering.flush(10) == []
    assert outside.got == ["a", "b", "c"] and outside.told == []


def test_a_mark_does_not_wait_and_many_marks_are_one_delivery(outside, delivering):
    outside.open.clear()
    delivering.mark("a")
    assert outside.tried.wait(10)
    for _ in range(50):
        delivering.mark("b")
    assert outside.got == []
    outside.open.set()
    assert delivering.flush(10) == []
    assert outside.got == ["a", "b"]


def test_a_mark_during_its_delivery_makes_one_more(outside, delivering):
    outside.open.clear()
    delivering.mark("a")
    assert outside.tried.wait(10)
    delivering.mark("a")
    outside.open.set()
    assert delivering.flush(10) == []
    assert outside.got == ["a", "a"]


def test_an_outage_is_told_once_and_so_is_its_end(outside, delivering):
    outside.down = True
    delivering.mark("a", "b")
    until(lambda: len(outside.tries) >= 10)
    assert sorted(delivering.flush(0)) == ["a", "b"] and outside.told == ["a refused"]
    outside.down = False
    assert delivering.flush(10) == []
    assert sorted(outside.got) == ["a", "b"] and outside.told == ["a refused", "recovered"]


def test_a_key_that_is_refused_for_ever_holds_up_no_other(outside, delivering):
    outside.refused = {"bad"}
    delivering.mark("bad", "a", "b")
    until(lambda: outside.got == ["a", "b"])
    delivering.mark("c")
    until(lambda: outside.got == ["a", "b", "c"])
    assert delivering.flush(0) == ["bad"] and outside.told == ["bad refused"]


def test_what_is_new_comes_before_all_that_has_failed(outside, delivering):
    outside.refused = {f"bad {number}" for number in range(25)}
    delivering.mark(*outside.refused)
    until(lambda: len(outside.tries) >= 50)
    outside.open.clear()
    assert outside.tried.wait(10)
    delivering.mark("new")
    held = len(outside.tries)  # the last of these is under way
    outside.open.set()
    until(lambda: outside.got == ["new"])
    assert outside.tries[held] == "new"


def test_the_end_returns_what_is_left_and_does_not_wait_for_a_call_that_hangs(outside, delivering):
    outside.open.clear()
    delivering.mark("a", "b")
    assert outside.tried.wait(10)
    assert delivering.close(0.05) == ["a", "b"]


def test_what_is_abandoned_is_not_delivered_and_nobody_waits(outside, delivering):
    outside.open.clear()
    delivering.mark("a", "b")
    assert outside.tried.wait(10)
    delivering.abandon()
    delivering.mark("a", "c")
    assert delivering.flush(0) == delivering.close(0) == []
    outside.down = True  # the call that hung fails
    outside.open.set()
    delivering._thread.join(10)
    assert not delivering._thread.is_alive()
    assert outside.got == outside.told == []


def test_a_call_that_succeeds_after_it_was_abandoned_harms_nothing(outside, delivering):
    outside.open.clear()
    delivering.mark("a")
    assert outside.tried.wait(10)
    delivering.abandon()
    outside.open.set()
    delivering._thread.join(10)
    assert outside.got == ["a"] and not delivering._thread.is_alive()


def test_after_the_end_nothing_is_delivered(outside, delivering):
    delivering.mark("a")
    assert delivering.close(10) == []
    delivering.mark("b")
    assert delivering.flush(0.1) == ["b"]
    assert outside.got == ["a"]
