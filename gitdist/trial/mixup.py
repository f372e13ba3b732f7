"""Mixup (Zhang et al. 2018, arXiv 1710.09412): each sample of a batch blended with another one of it.

    x = lambda * x_a + (1 - lambda) * x_b,  loss = lambda * loss(., y_a) + (1 - lambda) * loss(., y_b)

One lambda a batch, from Beta(alpha, alpha). The choices of an epoch are drawn at once on the processor.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.trial.losses import Loss


def epoch_mixup(
    spec: TrialSpec, epoch: int, count: int, device: torch.device | str = "cpu"
) -> Callable[[Tensor, Loss, int], tuple[Tensor, Loss]]:
    """Draw the choices of an epoch of ``count`` samples and return what blends its batches.

    Args:
        spec: the trial; with a ``mixup_alpha`` of 0 batches and losses stay as they are.
        epoch: counted from 1.
        count: samples of the epoch.
        device: where the batches will be.

    Returns:
        ``blend(inputs, loss, start)``: the blended inputs ``[n, C, H, W]`` and the loss to train on, for the batch of
        samples ``start`` to ``start + n`` of the epoch. The loss takes logits of blended inputs and the labels that the
        batch had before.
    """
    if not spec.mixup_alpha:
        return lambda inputs, loss, start: (inputs, loss)
    rng = numpy_rng(spec.seed, "trial/mixup", epoch)
    sizes = [min(spec.batch_size, count - start) for start in range(0, count, spec.batch_size)]
    shares = rng.beta(spec.mixup_alpha, spec.mixup_alpha, len(sizes)).tolist()
    partners = torch.from_numpy(np.concatenate([rng.permutation(size) for size in sizes])).to(device)

    def blend(inputs: Tensor, loss: Loss, start: int) -> tuple[Tensor, Loss]:
        share: float = shares[start // spec.batch_size]
        others = partners[start : start + len(inputs)]

        def blended_loss(logits: Tensor, labels: Tensor) -> Tensor:
            return share * loss(logits, labels) + (1 - share) * loss(logits, labels[others])

        return inputs.mul(share).add_(inputs[others], alpha=1 - share), blended_loss

    return blend
