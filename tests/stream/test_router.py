from gitdist.stream.blocks import BlockKey, BlockLayout
from gitdist.stream.launch import safe_window
from gitdist.stream.router import Window, blocks_within, choose_server, num_to_prefill


def test_least_loaded_server_makes_the_block() -> None:
    assert choose_server([3, 1, 2], (), class_index=0) == 1


def test_class_decides_among_equally_loaded_servers() -> None:
    assert [choose_server([0, 0, 0], (), class_index) for class_index in range(5)] == [0, 1, 2, 0, 1]
    assert choose_server([5, 2, 2], (), class_index=0) == 1
    assert choose_server([2, 5, 2], (), class_index=1) == 2
    assert choose_server([2, 2, 5], (), class_index=2) == 0


def test_another_server_makes_the_blocks_of_an_absent_one() -> None:
    assert choose_server([0, 3, 2], (0,), class_index=0) == 2
    assert choose_server([0, 3, 2], (0, 1, 2), class_index=0) == 0  # all are gone: each waits for its own return


def test_requests_of_one_class_spread_over_servers_once_each_is_busy() -> None:
    outstanding = [0, 0, 0]
    for _ in range(9):
        outstanding[choose_server(outstanding, (), class_index=1)] += 1
    assert outstanding == [3, 3, 3]


def test_few_blocks_are_prefilled_so_that_a_request_waits_for_at_most_two_per_server() -> None:
    assert num_to_prefill([0, 0, 0], num_absent=0, num_kept=0, capacity=100) == 6
    assert num_to_prefill([2, 1, 0], num_absent=0, num_kept=0, capacity=100) == 3
    assert num_to_prefill([9, 0, 0], num_absent=0, num_kept=0, capacity=100) == 0
    assert num_to_prefill([1, 0, 0], num_absent=1, num_kept=0, capacity=100) == 3


def test_prefilled_blocks_evict_nothing_from_the_window() -> None:
    assert num_to_prefill([0, 0], num_absent=0, num_kept=97, capacity=100) == 3
    assert num_to_prefill([1, 0], num_absent=0, num_kept=97, capacity=100) == 2
    assert num_to_prefill([0, 0], num_absent=0, num_kept=100, capacity=100) == 0


def test_the_capacity_of_a_window_counts_the_ballast_of_its_blocks() -> None:
    large, small = (
        BlockLayout(block_size=500, image_shape=(1, 28, 28)),
        BlockLayout(block_size=20, image_shape=(1, 28, 28)),
    )
    assert blocks_within(2**20, large) == 2**20 // (500 * (28 * 28 + 8)) == 2
    assert blocks_within(2**20, small) == 2**20 // (100 * 1024) == 10
    assert blocks_within(0, small) == 1


def test_a_safe_window_leaves_free_space_in_the_fullest_object_store() -> None:
    stores = {"large": 4000.0, "small": 1000.0, "other": 10.0}
    assert safe_window(["small"], stores) == safe_window(["small", "small"], stores) == 600
    assert safe_window(["small", "large"], stores) == 1200
    assert safe_window(["small", "large", "large", "large"], stores) == 2400


def test_window_evicts_the_least_recently_used_block() -> None:
    window: Window[str] = Window(2)
    window.put(BlockKey(0, 0), "a")
    window.put(BlockKey(0, 1), "b")
    assert window.get(BlockKey(0, 0)) == "a"
    window.put(BlockKey(0, 2), "c")
    assert window.get(BlockKey(0, 1)) is None
    assert window.get(BlockKey(0, 0)) == "a"
    assert len(window) == 2


def test_window_discards_lost_blocks() -> None:
    window: Window[str] = Window(1)
    window.put(BlockKey(4, 0), "a")
    assert window.get(BlockKey(4, 0)) == "a"
    window.discard(BlockKey(4, 0))
    window.discard(BlockKey(4, 0))
    assert window.get(BlockKey(4, 0)) is None
