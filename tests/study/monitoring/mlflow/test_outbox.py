import threading
from collections.abc import Sequence

import pytest

from gitdist.study.monitoring.mlflow import outbox as outbox_module
from gitdist.study.monitoring.mlflow.outbox import Outbox
from tests.waiting import until


class Store:
    """Receives deliveries: it can be down, refuse a key, or be slow."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.items: list[tuple[str, list[int] | None]] = []
        self.events: list[str] = []
        self.tries: list[str] = []
        self.down = False
        self.refused: set[str] = set()
        self.tried = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def deliver(self, key: str, items: Sequence[int] | None) -> None:
        self.tries.append(key)
        if not self.open.is_set():
            self.tried.set()
            assert self.open.wait(10)
        if self.down or key in self.refused:
            raise OSError(f"{key} refused")
        self.got.append(key)
        self.items.append((key, None if items is None else list(items)))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(outbox_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outbox_module, "LONGEST_PAUSE_S", 0.04)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def outbox(store):
    opened = Outbox(
        store.deliver, lambda error: store.events.append(str(error)), lambda: store.events.append("recovered")
    )
    yield opened
    store.open.set()
    opened.close(0.0)


def test_keys_are_delivered_in_order(store, outbox):
    outbox.enqueue("a", "b")
    outbox.enqueue("c")
    assert outbox.flush(10) == []
    assert store.got == ["a", "b", "c"] and store.events == []


def test_enqueue_does_not_wait_and_many_calls_make_one_delivery(store, outbox):
    store.open.clear()
    outbox.enqueue("a")
    assert store.tried.wait(10)
    for _ in range(50):
        outbox.enqueue("b")
    assert store.got == []
    store.open.set()
    assert outbox.flush(10) == []
    assert store.got == ["a", "b"]


def test_a_call_during_its_delivery_makes_one_more(store, outbox):
    store.open.clear()
    outbox.enqueue("a")
    assert store.tried.wait(10)
    outbox.enqueue("a")
    store.open.set()
    assert outbox.flush(10) == []
    assert store.got == ["a", "a"]


def test_an_outage_is_reported_once_and_so_is_its_end(store, outbox):
    store.down = True
    outbox.enqueue("a", "b")
    until(lambda: len(store.tries) >= 10)
    assert sorted(outbox.flush(0)) == ["a", "b"] and store.events == ["a refused"]
    store.down = False
    assert outbox.flush(10) == []
    assert sorted(store.got) == ["a", "b"] and store.events == ["a refused", "recovered"]


def test_a_key_that_always_fails_does_not_delay_the_others(store, outbox):
    store.refused = {"bad"}
    outbox.enqueue("bad", "a", "b")
    until(lambda: store.got == ["a", "b"])
    outbox.enqueue("c")
    until(lambda: store.got == ["a", "b", "c"])
    assert outbox.flush(0) == ["bad"] and store.events == ["bad refused"]


def test_a_new_key_is_delivered_before_all_that_have_failed(store, outbox):
    store.refused = {f"bad {number}" for number in range(25)}
    outbox.enqueue(*store.refused)
    until(lambda: len(store.tries) >= 50)
    store.open.clear()
    assert store.tried.wait(10)
    outbox.enqueue("new")
    held = len(store.tries)  # the last of these is under way
    store.open.set()
    until(lambda: store.got == ["new"])
    assert store.tries[held] == "new"


def test_close_returns_what_is_left_and_does_not_wait_for_a_call_that_hangs(store, outbox):
    store.open.clear()
    outbox.enqueue("a", "b")
    assert store.tried.wait(10)
    assert outbox.close(0.05) == ["a", "b"]


def test_abandoned_keys_are_not_delivered_and_nobody_waits(store, outbox):
    store.open.clear()
    outbox.enqueue("a", "b")
    assert store.tried.wait(10)
    outbox.abandon()
    outbox.enqueue("a", "c")
    assert outbox.flush(0) == outbox.close(0) == []
    store.down = True  # the call that hung fails
    store.open.set()
    outbox._thread.join(10)
    assert not outbox._thread.is_alive()
    assert store.got == store.events == []


def test_a_call_that_succeeds_after_it_was_abandoned_harms_nothing(store, outbox):
    store.open.clear()
    outbox.enqueue("a")
    assert store.tried.wait(10)
    outbox.abandon()
    store.open.set()
    outbox._thread.join(10)
    assert store.got == ["a"] and not outbox._thread.is_alive()


def test_after_close_nothing_is_delivered(store, outbox):
    outbox.enqueue("a")
    assert outbox.close(10) == []
    outbox.enqueue("b")
    assert outbox.flush(0.1) == ["b"]
    assert store.got == ["a"]


def test_items_of_a_key_are_delivered_in_order_and_together_with_those_that_are_pending(store, outbox):
    outbox.append("a", 1)
    assert outbox.flush(10) == []
    store.open.clear()
    outbox.append("a", 2)
    assert store.tried.wait(10)
    for item in (3, 4):
        outbox.append("a", item)
        outbox.append("b", item)
    store.open.set()
    assert outbox.flush(10) == []
    assert store.items == [("a", [1]), ("a", [2]), ("a", [3, 4]), ("b", [3, 4])]


def test_items_are_part_of_the_newest_state_that_is_pending(store, outbox):
    store.open.clear()
    outbox.enqueue("a")
    assert store.tried.wait(10)
    outbox.append("b", 1)
    outbox.enqueue("b")
    outbox.append("b", 2)
    store.open.set()
    assert outbox.flush(10) == []
    assert store.items == [("a", None), ("b", None)]


@pytest.mark.parametrize("later", [False, True])
def test_after_a_failure_the_newest_state_is_delivered_instead_of_items(store, outbox, later):
    store.open.clear()
    outbox.append("a", 1)
    assert store.tried.wait(10)
    store.down = True
    if later:  # while the first item is being delivered
        outbox.append("a", 2)
    store.open.set()
    until(lambda: len(store.tries) >= 3)
    outbox.append("a", 3)
    store.down = False
    assert outbox.flush(10) == []
    assert store.items == [("a", None)]
