"""The paper's oracle (Zhou et al. 2022): training samples are untransformed images under fresh draws of the true T.

The draws of an epoch are named by trial seed and epoch, so they depend neither on the batches nor on an interruption.
Only their parameters are drawn at once; the images of a batch are transformed on the device when it is trained.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import apply_nuisance, draw_parameters
from gitdist.errors import SpecError
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec


def check_true_nuisance(spec: TrialSpec, nuisance: str) -> None:
    """Refuse the oracle where the nuisance is not known.

    Args:
        spec: the trial.
        nuisance: the data set's.

    Raises:
        SpecError: ``trial.true_nuisance`` is set and the data set has no nuisance.
    """
    if spec.true_nuisance and nuisance == "none":
        raise SpecError(
            "trial.true_nuisance needs a data set whose nuisance is known, but data.nuisance is 'none'; "
            "name a nuisance or set trial.true_nuisance to false"
        )


def epoch_nuisance(
    spec: TrialSpec, dataset: Dataset, epoch: int, count: int, device: torch.device | str = "cpu"
) -> Callable[[Tensor, int], Tensor]:
    """Draw the nuisance of an epoch of ``count`` samples and return what applies it to the batches.

    Args:
        spec: the trial; without ``true_nuisance`` the images stay as they are.
        dataset: its nuisance is T.
        epoch: counted from 1.
        count: samples of the epoch.
        device: where the batches will be.

    Returns:
        ``transform(images, start)``: the uint8 images ``[n, C, H, W]`` that the untransformed ``images``, samples
        ``start`` to ``start + n`` of the epoch, become.
    """
    if not spec.true_nuisance:
        return lambda images, start: images
    nuisance = dataset.nuisance
    parameters = draw_parameters(nuisance, count, numpy_rng(spec.seed, "trial/nuisance", epoch)).to(device)
    return lambda images, start: apply_nuisance(nuisance, images, parameters[start : start + len(images)])
