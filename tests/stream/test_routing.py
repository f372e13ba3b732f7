from gitdist.stream.keys import BlockKey
from gitdist.stream.routing import Window, choose_server


def test_least_loaded_server_makes_the_block() -> None:
    assert choose_server([3, 1, 2], class_index=0) == 1


def test_class_decides_among_equally_loaded_servers() -> None:
    assert [choose_server([0, 0, 0], class_index) for class_index in range(5)] == [0, 1, 2, 0, 1]
    assert choose_server([5, 2, 2], class_index=0) == 1
    assert choose_server([2, 5, 2], class_index=1) == 2
    assert choose_server([2, 2, 5], class_index=2) == 0


def test_requests_of_one_class_spread_over_servers_once_each_is_busy() -> None:
    outstanding = [0, 0, 0]
    for _ in range(9):
        outstanding[choose_server(outstanding, class_index=1)] += 1
    assert outstanding == [3, 3, 3]


def test_window_lets_go_of_the_block_unused_for_longest() -> None:
    window: Window[str] = Window(2)
    window.put(BlockKey(0, 0), "a")
    window.put(BlockKey(0, 1), "b")
    assert window.get(BlockKey(0, 0)) == "a"
    window.put(BlockKey(0, 2), "c")
    assert window.get(BlockKey(0, 1)) is None
    assert window.get(BlockKey(0, 0)) == "a"
    assert len(window) == 2


def test_window_holds_at_least_one_block_and_drops_what_is_lost() -> None:
    window: Window[str] = Window(0)
    window.put(BlockKey(4, 0), "a")
    assert window.get(BlockKey(4, 0)) == "a"
    window.drop(BlockKey(4, 0))
    window.drop(BlockKey(4, 0))
    assert window.get(BlockKey(4, 0)) is None
