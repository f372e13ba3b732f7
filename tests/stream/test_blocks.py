import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gitdist import bounds
from gitdist.data.dataset import Dataset
from gitdist.errors import StreamError
from gitdist.seeds import derive_seed
from gitdist.spec import StreamSpec
from gitdist.stream.blocks import BlockKey, BlockMaker, resolve_block_size
from tests.stream.toys import BatchSensitiveGenerator, batch_sensitive_maker

KEYS = [BlockKey(class_index, index) for class_index, index in product((0, 4, 9), range(3))]


def test_bytes_of_a_block_do_not_depend_on_the_order_of_requests(digits: Dataset) -> None:
    maker = batch_sensitive_maker(digits)
    expected = {key: maker.make(key) for key in KEYS}
    for seed in range(3):
        other = batch_sensitive_maker(digits)
        for key in random.Random(seed).sample(KEYS, len(KEYS)):
            block = other.make(key)
            np.testing.assert_array_equal(block.images, expected[key].images)
            np.testing.assert_array_equal(block.sources, expected[key].sources)


def test_another_process_makes_the_same_bytes(digits: Dataset, digits_directory: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gitdist.data.dataset import Dataset;"
        "from gitdist.stream.blocks import BlockKey; from tests.stream.toys import batch_sensitive_maker;"
        "block = batch_sensitive_maker(Dataset.open(Path(sys.argv[1]))).make(BlockKey(3, 7));"
        "sys.stdout.buffer.write(block.images.tobytes() + block.sources.tobytes())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script, digits_directory], cwd=root, capture_output=True, check=True)
    block = batch_sensitive_maker(digits).make(BlockKey(3, 7))
    assert done.stdout == block.images.tobytes() + block.sources.tobytes()


def test_sources_are_rows_of_the_class_and_nearly_uniform(digits: Dataset) -> None:
    maker = batch_sensitive_maker(digits, block_size=500)
    rows = np.flatnonzero(digits.train.labels == 2)
    sources = np.concatenate([maker.make(BlockKey(2, index)).sources for index in range(8)])
    counts = np.bincount(sources, minlength=len(digits.train.labels))
    assert counts.sum() == counts[rows].sum() == 4000
    expected = 4000 / len(rows)
    assert ((counts[rows] - expected) ** 2 / expected).sum() < 2 * len(rows)  # chi-square, mean len(rows) - 1


@pytest.mark.parametrize("change", [{"seed": 1}, {}])
def test_blocks_of_another_seed_or_index_are_other_draws(digits: Dataset, change: dict[str, int]) -> None:
    block = batch_sensitive_maker(digits).make(BlockKey(0, 0))
    other = batch_sensitive_maker(digits, **change).make(BlockKey(0, 0 if change else 1))
    assert not np.array_equal(block.sources, other.sources)
    assert not np.array_equal(block.images, other.images)


def test_each_image_is_encoded_once(digits: Dataset) -> None:
    maker = batch_sensitive_maker(digits, block_size=1000)
    for index in range(3):
        maker.make(BlockKey(0, index))
        maker.make(BlockKey(9, index))
    assert maker.stats.encoded == digits.class_sizes[0] + digits.class_sizes[9]
    assert maker.stats.blocks == 6
    assert maker.stats.images == 6000
    assert maker.stats.generating_s > 0


@pytest.mark.parametrize("images", [0, 100])
def test_blocks_do_not_depend_on_the_bound_of_the_codes(digits: Dataset, images: int) -> None:
    code_bytes = 4 * int(np.prod(digits.image_shape))
    ample, bounded = batch_sensitive_maker(digits), batch_sensitive_maker(digits, max_code_bytes=images * code_bytes)
    for key in [*KEYS, *KEYS]:
        np.testing.assert_array_equal(bounded.make(key).images, ample.make(key).images)
    assert ample.stats.encoded == sum(digits.class_sizes[label] for label in {key.class_index for key in KEYS})
    assert bounded.stats.encoded > ample.stats.encoded
    assert bounded._cache._num_bytes == sum(codes.nbytes for codes in bounded._cache._chunks.values())
    assert bounded._cache._num_bytes <= images * code_bytes


def test_automatic_blocks_are_bounded_by_what_a_trial_holds_of_all_classes(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = StreamSpec(block_size="auto", lookahead=5)  # which may change when a study resumes
    assert resolve_block_size(stream, digits) == (64, 64)
    monkeypatch.setattr(bounds, "BLOCKS_BYTES", 10 * 3 * 784 * 7)  # classes, blocks of each, bytes of an image, draws
    assert resolve_block_size(stream, digits) == (7, 7)
    monkeypatch.setattr(bounds, "BLOCKS_BYTES", 1)
    assert resolve_block_size(stream, digits) == (1, 1)
    assert resolve_block_size(StreamSpec(), digits) == resolve_block_size(StreamSpec(block_size=64), digits) == (64, 64)


def test_small_chunks_of_codes_encode_no_more_than_a_block_draws(digits: Dataset) -> None:
    maker = BlockMaker(BatchSensitiveGenerator(), digits.train, 0, 3, max_code_bytes=0, chunk_size=1)
    block = maker.make(BlockKey(0, 5))
    assert maker.stats.encoded == len(set(block.sources.tolist())) and len(block.images) == 3


def test_replicates_share_the_codes_and_nothing_else(digits: Dataset) -> None:
    maker = batch_sensitive_maker(digits, block_size=1000)
    first, *others = (maker.make(BlockKey(0, 0, replicate)) for replicate in range(3))
    assert maker.stats.encoded == digits.class_sizes[0]
    for other in others:
        assert not np.array_equal(other.sources, first.sources)
    derived = batch_sensitive_maker(digits, seed=derive_seed(0, "stream/replicate", 2), block_size=1000)
    np.testing.assert_array_equal(derived.make(BlockKey(0, 0)).images, others[1].images)


def test_class_without_training_images_is_refused(digits: Dataset) -> None:
    with pytest.raises(StreamError, match="class 10 has none"):
        batch_sensitive_maker(digits).make(BlockKey(10, 0))


def test_transforming_a_prefix_of_whole_batches_gives_a_prefix(digits: Dataset) -> None:
    test = digits.test
    maker = batch_sensitive_maker(digits)
    drawn = maker.transform(test.images[:150], test.clean[:150], "preview", 3)
    assert drawn.dtype == np.uint8 and drawn.shape == (150, *digits.image_shape)
    again = batch_sensitive_maker(digits).transform(test.images[:128], test.clean[:128], "preview", 3)
    np.testing.assert_array_equal(again, drawn[:128])
    rest = maker.transform(test.images[64:150], test.clean[64:150], "preview", 3, first=64)
    np.testing.assert_array_equal(rest, drawn[64:])
    assert not np.array_equal(maker.transform(test.images[:64], test.clean[:64], "preview", 4), drawn[:64])
