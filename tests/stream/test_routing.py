from gitdist.stream.keys import BlockKey, Layout
from gitdist.stream.routing import Window, blocks_within, choose_server, num_to_prepare, safe_window


def test_least_loaded_server_makes_the_block() -> None:
    assert choose_server([3, 1, 2], (), class_index=0) == 1


def test_class_decides_among_equally_loaded_servers() -> None:
    assert [choose_server([0, 0, 0], (), class_index) for class_index in range(5)] == [0, 1, 2, 0, 1]
    assert choose_server([5, 2, 2], (), class_index=0) == 1
    assert choose_server([2, 5, 2], (), class_index=1) == 2
    assert choose_server([2, 2, 5], (), class_index=2) == 0


def test_what_an_absent_server_would_make_another_one_makes():
    assert choose_server([0, 3, 2], (0,), class_index=0) == 2
    assert choose_server([0, 3, 2], (0, 1, 2), class_index=0) == 0  # all are gone: each waits for its own return


def test_requests_of_one_class_spread_over_servers_once_each_is_busy() -> None:
    outstanding = [0, 0, 0]
    for _ in range(9):
        outstanding[choose_server(outstanding, (), class_index=1)] += 1
    assert outstanding == [3, 3, 3]


def test_only_so_much_is_made_ahead_that_a_request_waits_for_two_blocks_a_server() -> None:
    assert num_to_prepare([0, 0, 0], num_absent=0, num_kept=0, capacity=100) == 6
    assert num_to_prepare([2, 1, 0], num_absent=0, num_kept=0, capacity=100) == 3
    assert num_to_prepare([9, 0, 0], num_absent=0, num_kept=0, capacity=100) == 0
    assert num_to_prepare([1, 0, 0], num_absent=1, num_kept=0, capacity=100) == 3


def test_what_is_made_ahead_pushes_nothing_out_of_the_window() -> None:
    assert num_to_prepare([0, 0], num_absent=0, num_kept=97, capacity=100) == 3
    assert num_to_prepare([1, 0], num_absent=0, num_kept=97, capacity=100) == 2
    assert num_to_prepare([0, 0], num_absent=0, num_kept=100, capacity=100) == 0


def test_bytes_of_a_window_are_those_that_its_blocks_take_with_their_ballast() -> None:
    large, small = Layout(block_size=500, image_shape=(1, 28, 28)), Layout(block_size=20, image_shape=(1, 28, 28))
    assert blocks_within(2**20, large) == 2**20 // (500 * (28 * 28 + 8)) == 2
    assert blocks_within(2**20, small) == 2**20 // (100 * 1024) == 10
    assert blocks_within(0, small) == 1


def test_safe_window_leaves_room_in_the_fullest_object_store() -> None:
    stores = {"large": 4000.0, "small": 1000.0, "other": 10.0}
    assert safe_window(["small"], stores) == safe_window(["small", "small"], stores) == 600
    assert safe_window(["small", "large"], stores) == 1200
    assert safe_window(["small", "large", "large", "large"], stores) == 2400


def test_window_lets_go_of_the_block_unused_for_longest() -> None:
    window: Window[str] = Window(2)
    window.put(BlockKey(0, 0), "a")
    window.put(BlockKey(0, 1), "b")
    assert window.get(BlockKey(0, 0)) == "a"
    window.put(BlockKey(0, 2), "c")
    assert window.get(BlockKey(0, 1)) is None
    assert window.get(BlockKey(0, 0)) == "a"
    assert len(window) == 2


def test_window_drops_what_is_lost() -> None:
    window: Window[str] = Window(1)
    window.put(BlockKey(4, 0), "a")
    assert window.get(BlockKey(4, 0)) == "a"
    window.drop(BlockKey(4, 0))
    window.drop(BlockKey(4, 0))
    assert window.get(BlockKey(4, 0)) is None
