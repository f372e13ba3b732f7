"""gitdist's own training loop, set up for measuring: augmenting from its first epoch, out of blocks that are there."""

from gitdist.bench.ready import ready_stream
from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.spec import TrialSpec
from gitdist.trial.training import EpochTrainer, fresh_classifier


def augmenting(spec: TrialSpec) -> TrialSpec:
    """Return the trial with its augmentation on from the first epoch, for all classes."""
    return spec.model_copy(update={"switch_epoch": 0, "threshold": None, "fraction": spec.fraction or 0.5})


def own_trainer(spec: TrialSpec, dataset: Dataset, compute: Compute, block_size: int) -> EpochTrainer:
    """Return a trainer that mixes in draws from blocks that are there.

    Args:
        spec: what ``augmenting`` returned.
        dataset: its training rows are read.
        compute: device and precision.
        block_size: draws a block.
    """
    stream = ready_stream(dataset, block_size)
    return EpochTrainer(spec, dataset, stream, fresh_classifier(spec, dataset), compute)
