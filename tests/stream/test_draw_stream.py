from collections.abc import Sequence

import numpy as np
import pytest

from gitdist.data.dataset import Dataset
from gitdist.errors import StreamError
from gitdist.stream import draw_stream
from gitdist.stream.blocks import Block, BlockKey, BlockLayout
from gitdist.stream.draw_stream import DrawStream, LocalBlocks
from tests.stream.toys import batch_sensitive_maker

BLOCK_SIZE = 7
NUM_CLASSES = 4


class NumberedBlocks:
    """Each image is its own name: class, then draw number in two bytes."""

    layout = BlockLayout(block_size=BLOCK_SIZE, image_shape=(1, 1, 3))
    generated, waited_s = 0, 0.0

    def __init__(self) -> None:
        self.got: list[BlockKey] = []
        self.held: set[BlockKey] = set()
        self.requested: list[BlockKey] = []
        self.planned: list[BlockKey] = []
        self.failing: set[BlockKey] = set()

    def plan(self, keys: Sequence[BlockKey]) -> None:
        self.planned = list(keys)

    def request(self, keys: Sequence[BlockKey]) -> None:
        self.requested += keys

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        if self.failing & set(keys):
            raise StreamError("the stream must deliver, but this test says no")
        self.got += [key for key in keys if key not in self.held]
        self.held |= set(keys)
        return [self._block(key.class_index, key.index) for key in keys]

    def release(self, keys: Sequence[BlockKey]) -> None:
        self.held -= set(keys)

    def close(self) -> None:
        self.failing = set(self.got)

    @staticmethod
    def _block(class_index: int, index: int) -> Block:
        draws = np.arange(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE)
        images = np.stack([np.full(BLOCK_SIZE, class_index), draws // 256, draws % 256], axis=1)
        return Block(images.astype(np.uint8).reshape(BLOCK_SIZE, 1, 1, 3), draws)


def stream_of(source: NumberedBlocks, lookahead: int = 2) -> DrawStream:
    return DrawStream(source, NUM_CLASSES, lookahead)


def names(drawn: np.ndarray) -> list[tuple[int, int]]:
    return [(int(c), int(high) * 256 + int(low)) for c, high, low in drawn.reshape(-1, 3)]


def random_batches(num_batches: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, NUM_CLASSES, size=size) for size in rng.integers(0, 40, size=num_batches)]


def test_every_draw_comes_once_and_in_order_over_batches_of_odd_sizes() -> None:
    stream, batches = stream_of(NumberedBlocks()), random_batches(60)
    drawn = [name for labels in batches for name in names(stream.take(labels))]
    next_draw = [0] * NUM_CLASSES
    for label, name in zip(np.concatenate(batches).tolist(), drawn, strict=True):
        assert name == (label, next_draw[label])
        next_draw[label] += 1
    assert stream.cursors.tolist() == next_draw
    assert stream.draws == sum(next_draw)


def test_restored_cursors_continue_with_the_very_next_draw() -> None:
    whole, batches = stream_of(NumberedBlocks()), random_batches(40)
    expected = [whole.take(labels) for labels in batches]
    first = stream_of(NumberedBlocks())
    for labels in batches[:17]:
        first.take(labels)
    restored = stream_of(NumberedBlocks())
    restored.cursors = first.cursors
    for labels, images in zip(batches[17:], expected[17:], strict=True):
        np.testing.assert_array_equal(restored.take(labels), images)


def test_moving_a_used_stream_back_repeats_its_draws() -> None:
    stream, batches = stream_of(NumberedBlocks()), random_batches(12)
    before = stream.cursors
    expected = [stream.take(labels) for labels in batches]
    stream.cursors = before
    for labels, images in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(stream.take(labels), images)


def test_each_block_is_requested_and_got_once_and_released_once_it_is_used_up() -> None:
    source = NumberedBlocks()
    stream = stream_of(source)
    for labels in random_batches(60):
        stream.take(labels)
    assert len(source.got) == len(set(source.got))
    assert len(source.requested) == len(set(source.requested))
    assert set(source.got) <= set(source.requested)
    assert source.held == {BlockKey(c, cursor // BLOCK_SIZE) for c, cursor in enumerate(stream.cursors) if cursor % 7}


def test_blocks_are_requested_lookahead_blocks_beyond_the_cursor() -> None:
    source = NumberedBlocks()
    stream = stream_of(source, lookahead=3)
    stream.prefetch([2, 0, 2])
    assert source.requested == [BlockKey(c, index) for index in range(4) for c in (0, 2)]
    stream.take(np.full(BLOCK_SIZE - 1, 2))
    assert len(source.requested) == 8
    stream.take(np.array([2]))
    assert source.requested[8:] == [BlockKey(2, 4)]


def test_of_very_many_blocks_the_first_of_each_class_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_stream, "_MAX_PLANNED", 10)
    source = NumberedBlocks()
    stream = stream_of(source)
    stream.plan(np.array([100 * BLOCK_SIZE, 0, 100 * BLOCK_SIZE, 2 * BLOCK_SIZE]))
    assert source.planned == [
        BlockKey(label, index) for index in range(3) for label in (0, 2, 3) if (label, index) != (3, 2)
    ]
    stream.take(np.full(5 * BLOCK_SIZE, 2))
    assert BlockKey(2, 4) in source.requested  # beyond the plan


def test_exactly_the_blocks_that_will_be_taken_are_planned_the_first_of_each_class_first() -> None:
    source = NumberedBlocks()
    stream = stream_of(source)
    stream.cursors = np.array([0, 0, BLOCK_SIZE, 1])
    stream.plan(np.array([2 * BLOCK_SIZE, 0, 2 * BLOCK_SIZE + 1, 1]))
    assert source.planned == [BlockKey(0, 0), BlockKey(2, 1), BlockKey(3, 0), BlockKey(0, 1), BlockKey(2, 2)]


def test_nothing_is_requested_beyond_what_will_be_taken() -> None:
    source, labels = NumberedBlocks(), np.repeat([0, 2], [BLOCK_SIZE + 1, 3])
    stream = stream_of(source)
    stream.plan(np.bincount(labels, minlength=NUM_CLASSES))
    stream.prefetch([0, 2])
    stream.take(labels)
    assert set(source.requested) == set(source.planned) == {BlockKey(0, 0), BlockKey(0, 1), BlockKey(2, 0)}
    assert names(stream.take(np.full(BLOCK_SIZE, 2))) == [(2, draw) for draw in range(3, 3 + BLOCK_SIZE)]


def test_replicates_are_independent_streams(digits: Dataset) -> None:
    source, labels = LocalBlocks(batch_sensitive_maker(digits)), np.repeat(np.arange(digits.num_classes), 3)
    zeroth, first, again = (
        DrawStream(source, digits.num_classes, 1, replicate).take(labels) for replicate in (0, 1, 1)
    )
    np.testing.assert_array_equal(zeroth, DrawStream(source, digits.num_classes, 1).take(labels))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(zeroth, first)


def test_failed_take_leaves_the_cursors_where_they_were() -> None:
    source = NumberedBlocks()
    stream = stream_of(source)
    stream.take(np.array([1, 1, 3]))
    source.failing = {BlockKey(1, 1)}
    with pytest.raises(StreamError, match="this test says no"):
        stream.take(np.full(10, 1))
    assert stream.cursors.tolist() == [0, 2, 0, 1]
    source.failing = set()
    assert names(stream.take(np.full(10, 1))) == [(1, draw) for draw in range(2, 12)]


def test_no_labels_give_no_images_and_request_nothing() -> None:
    source = NumberedBlocks()
    assert stream_of(source).take(np.empty(0, np.int64)).shape == (0, 1, 1, 3)
    assert not source.got and not source.requested


def test_the_caller_may_write_into_the_images_taken(digits: Dataset) -> None:
    source = LocalBlocks(batch_sensitive_maker(digits))
    taken = DrawStream(source, digits.num_classes, 1).take(np.array([0, 0]))
    expected = taken.copy()
    taken[:] = 0
    np.testing.assert_array_equal(DrawStream(source, digits.num_classes, 1).take(np.array([0, 0])), expected)


def test_local_blocks_are_made_once_while_they_are_held_and_alike_again(digits: Dataset) -> None:
    maker = batch_sensitive_maker(digits)
    source = LocalBlocks(maker)
    keys = [BlockKey(0, 0), BlockKey(1, 0)]
    first = source.get(keys)
    waited = source.waited_s
    assert waited > 0
    assert source.get(keys)[1] is first[1]
    assert source.waited_s == waited and maker.stats.blocks == 2
    source.release(keys[:1])
    again = source.get(keys)
    assert maker.stats.blocks == 3
    np.testing.assert_array_equal(first[0].images, again[0].images)
