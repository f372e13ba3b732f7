import numpy as np
import pytest
import torch

from gitdist.data.nuisance import transform
from gitdist.errors import SpecError
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator


@pytest.fixture
def pair(digits) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(digits.train.images[:8]), torch.tensor(digits.train.clean[:8])


def test_the_oracle_applies_the_nuisance_to_the_clean_image(pair):
    images, clean = pair
    generator = OracleGenerator("background")
    drawn = generator.draw(generator.encode(images, clean), np.random.default_rng(3))
    assert torch.equal(drawn, transform("background", clean, np.random.default_rng(3)))
    # One grey a draw wherever the clean image is empty; on the transformed image nothing would be left to fill.
    backgrounds = [image[empty].unique().tolist() for image, empty in zip(drawn, clean == 0, strict=True)]
    assert all(len(levels) == 1 and levels[0] < 100 for levels in backgrounds)
    assert torch.equal(drawn[clean > 0], clean[clean > 0])


def test_without_a_known_nuisance_there_is_no_oracle():
    with pytest.raises(SpecError, match="data.nuisance is 'none'"):
        OracleGenerator("none")


def test_the_identity_returns_the_image_and_leaves_the_random_state_alone(pair):
    images, clean = pair
    generator, rng = IdentityGenerator(), np.random.default_rng(0)
    drawn = generator.draw(generator.encode(images, clean), rng)
    assert torch.equal(drawn, images)
    assert rng.random() == np.random.default_rng(0).random()
