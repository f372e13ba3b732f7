import numpy as np
import pytest

from gitdist.balancing.samplers import SAMPLERS
from gitdist.spec import TrialSpec
from gitdist.trial.plan import class_probabilities

SIZES = np.array([400, 0, 90, 10])
BETA = 0.99
EPOCH = 3  # of 10: progress 0.3
WEIGHTS = {
    "instance": [400, 0, 90, 10],
    "class-balanced": [1, 0, 1, 1],
    "square-root": [400**0.5, 0, 90**0.5, 10**0.5],
    "effective-number": [n * (1 - BETA) / (1 - BETA**n) if n else 0 for n in (400, 0, 90, 10)],
    "progressively-balanced": [0.7 * n / 500 + 0.3 * (n > 0) / 3 for n in (400, 0, 90, 10)],
}


def spec_of(sampler, **fields):
    return TrialSpec(**{"sampler": sampler, "effective_beta": BETA, "epochs": 10, **fields})


def probabilities_of(sampler, epoch=EPOCH, **fields):
    return class_probabilities(spec_of(sampler, **fields), SIZES, epoch)


def test_every_sampler_has_its_formula_here():
    assert WEIGHTS.keys() == SAMPLERS.keys()


@pytest.mark.parametrize("sampler", list(WEIGHTS))
def test_class_probabilities_follow_the_samplers_formula(sampler):
    weights = np.array(WEIGHTS[sampler])

    assert probabilities_of(sampler) == pytest.approx(weights / weights.sum(), rel=1e-12)


def test_progressive_balancing_goes_from_instance_to_class_balanced():
    sampler = SAMPLERS["progressively-balanced"]

    for progress, same_as in ((0.0, "instance"), (1.0, "class-balanced")):
        assert np.array_equal(sampler(SIZES, progress), probabilities_of(same_as))


def test_effective_number_lies_between_instance_and_class_balanced():
    near_one, near_zero = (probabilities_of("effective-number", effective_beta=beta) for beta in (1 - 1e-12, 1e-12))

    assert near_one == pytest.approx(probabilities_of("class-balanced"), abs=1e-6)
    assert near_zero == pytest.approx(probabilities_of("instance"), abs=1e-6)
