"""What happens to a batch on its way to the network, whole batches at a time and on the device.

    true nuisance -> (draws of the stream) -> crop, flip -> RandAugment -> normalise -> mixup
    uint8 [n, C, H, W]                                                     float32 [n, C, H, W], channels_last

The random choices of an epoch are drawn at once on the processor, each kind under a name of its own, so they depend
neither on the device nor on an interruption. ``start`` is a batch's first sample in the epoch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gitdist.balancing.losses import Loss
from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import apply_nuisance, draw_parameters
from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.errors import SpecError
from gitdist.networks import published_normalisation
from gitdist.networks.libraries import Normalisation
from gitdist.seeds import derive_seed, numpy_rng
from gitdist.spec import NormalizationSpec, TrialSpec

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@contextmanager
def layer_randomness(spec: TrialSpec, epoch: int, device: torch.device) -> Iterator[None]:
    """Let the layers of a network (dropout, stochastic depth) draw what seed and epoch determine, inside the block.

    They draw from torch's global random state, which is restored at the end. Nothing else in training reads it.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(spec.seed, "trial/layers", epoch))
        yield


def epoch_nuisance(
    spec: TrialSpec, dataset: Dataset, epoch: int, num_samples: int, device: torch.device | str = "cpu"
) -> Callable[[Tensor, int], Tensor]:
    """Return what applies the true nuisance to the untransformed images of an epoch's batches.

    That is the paper's oracle (Zhou et al. 2022): training samples are images under fresh draws of the true T. Without
    ``true_nuisance`` the images stay as they are.

    Raises:
        SpecError: ``trial.true_nuisance`` is set and the data set has no known nuisance.
    """
    if not spec.true_nuisance:
        return lambda images, start: images
    nuisance = dataset.nuisance
    if nuisance == "none":
        raise SpecError(
            "trial.true_nuisance needs a data set whose nuisance is known, but data.nuisance is 'none'; "
            "name a nuisance or set trial.true_nuisance to false"
        )
    parameters = draw_parameters(nuisance, num_samples, numpy_rng(spec.seed, "trial/nuisance", epoch)).to(device)
    return lambda images, start: apply_nuisance(nuisance, images, parameters[start : start + len(images)])


@dataclass(frozen=True, kw_only=True, eq=False)
class CropFlip:
    """Where each sample of an epoch is cropped and whether it is mirrored.

    ``top`` and ``left`` int64 ``[N]`` are the corner of the crop in the image with ``padding`` pixels of zeros around
    it, 0..2 * padding; ``flip`` bool ``[N]``. None = not done.
    """

    padding: int = 0
    top: Tensor | None = None
    left: Tensor | None = None
    flip: Tensor | None = None

    @classmethod
    def draw(
        cls,
        num_samples: int,
        padding: int,
        flip: bool,
        rng: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> "CropFlip":
        """Draw crop corners (unless ``padding`` is 0) and mirrorings (if ``flip``), each uniform."""
        top = left = flips = None
        if padding:
            top, left = torch.from_numpy(rng.integers(0, 2 * padding + 1, (2, num_samples))).to(device)
        if flip:
            flips = torch.from_numpy(rng.random(num_samples) < 0.5).to(device)
        return cls(padding=padding, top=top, left=left, flip=flips)

    def __call__(self, images: Tensor, start: int = 0) -> Tensor:
        """Crop and mirror a batch of uint8 images ``[n, C, H, W]``, each by its own choice, with zeros as padding."""
        batch = slice(start, start + len(images))
        if self.top is not None and self.left is not None:
            height, width = images.shape[2:]
            padded = functional.pad(images, (self.padding,) * 4)
            windows = padded.unfold(2, height, 1).unfold(3, width, 1)
            samples = torch.arange(len(images), device=images.device)
            images = windows[samples, :, self.top[batch], self.left[batch]]
        if self.flip is not None:
            images = torch.where(self.flip[batch, None, None, None], images.flip(3), images)
        return images


class Normaliser:
    """Maps uint8 pixels to ``(x / 255 - mean) / std`` per channel, float32 in channels_last."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        """Take the training images' mean and standard deviation (of values in 0..1), one number per channel each."""
        spread = torch.tensor(std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self._offset = torch.tensor(mean, dtype=torch.float32, device=device).view(1, -1, 1, 1) / spread
        self._gain = 1 / (255 * spread)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's input for uint8 images ``[N, C, H, W]``."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels.mul_(self._gain).sub_(self._offset)


def input_normalisation(spec: TrialSpec, dataset: Dataset) -> Normalisation:
    """Return the mean and standard deviation per channel with which a trial's network takes its images.

    Raises:
        SpecError: ``trial.normalize`` has neither one number nor one per channel.
    """
    channels = dataset.image_shape[0]
    match spec.normalize:
        case None:
            published = published_normalisation(spec.network) if spec.pretrained else None
            return (dataset.mean, dataset.std) if published is None else _of_channels(published, channels)
        case "data":
            return dataset.mean, dataset.std
        case "imagenet":
            return _of_channels(IMAGENET, channels)
        case NormalizationSpec(mean=mean, std=std):
            for name, values in (("mean", mean), ("std", std)):
                if len(values) not in (1, channels):
                    raise SpecError(
                        f"trial.normalize.{name} must have one number, or one for each of the {channels} channels of "
                        f"the images, but it has {len(values)}; correct it"
                    )
            return _of_channels((mean, std), channels)
        case unknown:
            assert_never(unknown)


def _of_channels(normalisation: Normalisation, channels: int) -> Normalisation:
    """Return it for images of ``channels`` channels; where the numbers differ, their mean for each channel."""
    mean, std = (
        values if len(values) == channels else (sum(values) / len(values),) * channels for values in normalisation
    )
    return mean, std


class InputPipeline:
    """Turns a trial's uint8 training batches into the network's inputs: crop, flip, RandAugment, normalise."""

    def __init__(self, spec: TrialSpec, dataset: Dataset, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self._normalise = Normaliser(*input_normalisation(spec, dataset), device)
        magnitude = spec.randaugment_magnitude
        self._randaugment = RandAugment(magnitude, dataset.image_shape, device) if spec.randaugment_ops else None

    def for_epoch(self, epoch: int, num_samples: int) -> Callable[[Tensor, int], Tensor]:
        """Draw the choices of an epoch and return what makes inputs of its batches."""
        spec = self._spec
        crop_rng = numpy_rng(spec.seed, "trial/placement", epoch)
        crop_flip = CropFlip.draw(num_samples, spec.crop_padding, spec.flip, crop_rng, self._device)
        operations_rng = numpy_rng(spec.seed, "trial/randaugment", epoch)
        operations = draw_operations(num_samples, spec.randaugment_ops, operations_rng)

        def inputs(images: Tensor, start: int) -> Tensor:
            images = crop_flip(images, start)
            if self._randaugment:
                images = self._randaugment(images, operations[:, start : start + len(images)])
            return self._normalise(images)

        return inputs


def epoch_mixup(
    spec: TrialSpec, epoch: int, num_samples: int, device: torch.device | str = "cpu"
) -> Callable[[Tensor, Loss, int], tuple[Tensor, Loss]]:
    """Return what blends each sample of an epoch's batches with another one of its batch, and the loss alike.

    Mixup (Zhang et al. 2018, arXiv 1710.09412), with one lambda per batch, from Beta(alpha, alpha):
    ``x = lambda * x_a + (1 - lambda) * x_b,  loss = lambda * loss(., y_a) + (1 - lambda) * loss(., y_b)``. With a
    ``mixup_alpha`` of 0 batches and losses stay as they are.

    Returns:
        ``blend(inputs, loss, start)``: the blended inputs ``[n, C, H, W]``, and the loss of their logits and the labels
        that the batch had before.
    """
    if not spec.mixup_alpha:
        return lambda inputs, loss, start: (inputs, loss)
    rng = numpy_rng(spec.seed, "trial/mixup", epoch)
    sizes = [min(spec.batch_size, num_samples - start) for start in range(0, num_samples, spec.batch_size)]
    shares = rng.beta(spec.mixup_alpha, spec.mixup_alpha, len(sizes)).tolist()
    partners = torch.from_numpy(np.concatenate([rng.permutation(size) for size in sizes])).to(device)

    def blend(inputs: Tensor, loss: Loss, start: int) -> tuple[Tensor, Loss]:
        share: float = shares[start // spec.batch_size]
        others = partners[start : start + len(inputs)]

        def blended_loss(logits: Tensor, labels: Tensor) -> Tensor:
            return share * loss(logits, labels) + (1 - share) * loss(logits, labels[others])

        return inputs.mul(share).add_(inputs[others], alpha=1 - share), blended_loss

    return blend
