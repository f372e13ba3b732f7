"""The client's table of blocks, without Ray."""

import random

from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockState, BlockTable


def test_a_block_is_in_one_state_and_a_state_lists_its_blocks_in_the_order_of_entry() -> None:
    rng, keys = random.Random(0), [BlockKey(class_index, 0) for class_index in range(10)]
    table, expected = BlockTable(), dict[BlockKey, tuple[BlockState, float]]()
    for _ in range(2000):
        key = rng.choice(keys)
        expected.pop(key, None)
        if rng.random() < 0.2:
            table.discard(key)
        else:
            expected[key] = state, value = rng.choice(list(BlockState)), rng.random()
            table.move(key, state, value)
        for state in BlockState:
            found = [(key, value) for key, (its_state, value) in expected.items() if its_state is state]
            assert list(table[state].items()) == found
        assert [table.state(key) for key in keys] == [expected.get(key, (None, 0))[0] for key in keys]
