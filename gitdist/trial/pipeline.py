"""What happens to a batch between the training images and the network: crop and flip, RandAugment, normalisation.

    uint8 [n, C, H, W] -> place -> RandAugment -> Normaliser -> float32 [n, C, H, W], channels_last

Whole batches, on the device. The random choices of an epoch are drawn at once, each kind under a name of its own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gitdist.data.dataset import Dataset
from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.trial.augment import Normaliser, draw_placement, place


class Pipeline:
    """Turns a trial's training batches into the network's inputs."""

    def __init__(self, spec: TrialSpec, dataset: Dataset, device: torch.device) -> None:
        """Prepare for the images of ``dataset``, in batches on ``device``."""
        self._spec, self._device = spec, device
        self._normalise = Normaliser(dataset.mean, dataset.std, device)
        magnitude = spec.randaugment_magnitude
        self._randaugment = RandAugment(magnitude, dataset.image_shape, device) if spec.randaugment_ops else None

    def epoch(self, epoch: int, count: int) -> Callable[[Tensor, int], Tensor]:
        """Draw the choices of an epoch of ``count`` samples and return what makes inputs of its batches.

        Returns:
            ``inputs(images, start)``: the network's input for uint8 images ``[n, C, H, W]`` that are the samples
            ``start`` to ``start + n`` of the epoch.
        """
        spec = self._spec
        placement_rng = numpy_rng(spec.seed, "trial/placement", epoch)
        placement = draw_placement(count, spec.crop_padding, spec.flip, placement_rng, self._device)
        operations = draw_operations(count, spec.randaugment_ops, numpy_rng(spec.seed, "trial/randaugment", epoch))

        def inputs(images: Tensor, start: int) -> Tensor:
            stop = start + len(images)
            images = place(images, placement.rows(start, stop))
            if self._randaugment:
                images = self._randaugment(images, operations[:, start:stop])
            return self._normalise(images)

        return inputs
