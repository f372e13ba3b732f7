import numpy as np
import torch

from gitdist.seeds import derive_seed, numpy_rng, torch_rng


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert derive_seed(0, "data/ranks") == 8656334776760340026
    assert derive_seed(7, "trial/shuffle", 3, 1) == 4697539594270726031


def test_a_seed_does_not_depend_on_what_was_drawn_before() -> None:
    forward = {index: numpy_rng(1, "draw", index).integers(0, 2**32, 4).tolist() for index in range(6)}
    backward = {index: numpy_rng(1, "draw", index).integers(0, 2**32, 4).tolist() for index in reversed(range(6))}
    assert forward == backward


def test_root_name_and_each_index_count() -> None:
    seeds = [
        derive_seed(*key)
        for key in [
            (0, "a"),
            (1, "a"),
            (0, "b"),
            (0, "a", 0),
            (0, "a", 1, 2),
            (0, "a", 2, 1),
            (0, "a", 12),
            (0, "a", -1),
        ]
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_seed_fits_a_signed_integer_and_numpy_integers_give_the_same() -> None:
    assert all(0 <= derive_seed(root, "range") < 2**63 for root in range(1000))
    assert derive_seed(3, "a", 5) == derive_seed(int(np.int64(3)), "a", np.int64(5))  # type: ignore[arg-type]


def test_generators_of_one_name_draw_the_same_and_of_two_names_differ() -> None:
    one, same, other = (torch.rand(8, generator=torch_rng(2, name)) for name in ("x", "x", "y"))
    assert torch.equal(one, same) and not torch.equal(one, other)
    np.testing.assert_array_equal(numpy_rng(2, "x").random(8), numpy_rng(2, "x").random(8))
    assert not np.array_equal(numpy_rng(2, "x").random(8), numpy_rng(2, "y").random(8))
