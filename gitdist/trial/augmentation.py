"""What happens to a batch on its way to the network, whole batches at a time and on the device.

    true nuisance -> (draws of the stream) -> crop, flip -> resized crop -> colour jitter -> RandAugment
    uint8 [n, C, H, W]
        -> normalise -> mixup or cutmix
           float32 [n, C, H, W], channels_last

The random choices of an epoch are drawn at once on the processor, each kind under a name of its own, so they depend
neither on the device nor on an interruption. ``start`` is a batch's first sample in the epoch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gitdist.balancing.loss_modules import Loss
from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import apply_nuisance, draw_parameters
from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.errors import SpecError
from gitdist.networks import published_normalisation
from gitdist.networks.libraries import Normalisation
from gitdist.seeds import derive_seed, numpy_rng
from gitdist.spec import NormalizationSpec, TrialSpec
from gitdist.trial.images import TrainingImages

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CROP_ATTEMPTS = 10
_CROP_RATIOS = (3 / 4, 4 / 3)  # width / height


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ResizedCrop:
    """Which part of each sample of an epoch is resized to the whole image (Szegedy et al. 2015, arXiv 1409.4842).

    ``top``, ``left``, ``height`` and ``width`` int64 ``[N]`` in pixels.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    @classmethod
    def draw(
        cls,
        num_samples: int,
        smallest: float,
        image_size: tuple[int, int],
        rng: np.random.Generator,
        device: torch.device | str = "cpu",
    ) -> "ResizedCrop":
        """Draw boxes as torchvision's RandomResizedCrop does.

        The area is uniform between ``smallest`` and 1 of an image of ``(height, width)``, the ratio of the sides is
        log-uniform between 3/4 and 4/3. A box that does not fit is drawn anew, up to ten times in all; then it is the
        largest one around the centre with a ratio that is allowed.
        """
        size, (narrowest, widest) = np.array(image_size), _CROP_RATIOS
        boxes = np.empty((2, num_samples), np.int64)  # height and width
        missing = np.arange(num_samples)
        for _ in range(_CROP_ATTEMPTS):
            area = size.prod() * rng.uniform(smallest, 1, len(missing))
            ratio = np.exp(rng.uniform(math.log(narrowest), math.log(widest), len(missing)))
            drawn = np.round(np.sqrt([area / ratio, area * ratio])).astype(np.int64)
            fits = ((drawn > 0) & (drawn <= size[:, None])).all(0)
            boxes[:, missing[fits]] = drawn[:, fits]
            missing = missing[~fits]
        boxes[:, missing] = np.minimum(size, np.round([size[1] / narrowest, size[0] * widest]))[:, None]
        corners = rng.integers(0, size[:, None] - boxes + 1)
        corners[:, missing] = (size[:, None] - boxes[:, missing]) // 2
        top, left, height, width = torch.from_numpy(np.concatenate([corners, boxes])).to(device)
        return cls(top=top, left=left, height=height, width=width)

    def __call__(self, images: Tensor, start: int = 0) -> Tensor:
        """Return the boxes of a batch of uint8 images ``[n, C, H, W]``, resized to ``[n, C, H, W]`` bilinearly."""
        batch, (height, width) = slice(start, start + len(images)), images.shape[2:]
        down = _sampled_points(self.top[batch], self.height[batch], height)
        across = _sampled_points(self.left[batch], self.width[batch], width)
        grid = torch.stack([across[:, None].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], dim=3)
        resized = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return _to_pixels(resized)


def _sampled_points(starts: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Return where each of ``size`` pixels lies in its box ``[n]`` of an axis, -1..1 over the axis, ``[n, size]``."""
    starts, lengths = starts[:, None], lengths[:, None]
    centres = torch.arange(size, device=starts.device) + 0.5
    inside = (centres * (lengths / size)).clamp(min=0.5).minimum(lengths - 0.5)  # not between the box and its outside
    return 2 * (starts + inside) / size - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class ColorJitter:
    """By which factors brightness, contrast and saturation of each sample of an epoch change, and in which order.

    ``factors`` float32 ``[3, N]`` in that order; ``order`` int64 ``[3, N]``: which of the three comes first, second and
    third.
    """

    factors: Tensor
    order: Tensor

    @classmethod
    def draw(
        cls, num_samples: int, strength: float, rng: np.random.Generator, device: torch.device | str = "cpu"
    ) -> "ColorJitter":
        """Draw the factors, uniform between 1 - ``strength`` and 1 + ``strength``, and the orders."""
        factors = rng.uniform(1 - strength, 1 + strength, (3, num_samples)).astype(np.float32)
        order = rng.permuted(np.tile(np.arange(3)[:, None], num_samples), axis=0)
        return cls(factors=torch.from_numpy(factors).to(device), order=torch.from_numpy(order).to(device))

    def __call__(self, images: Tensor, start: int = 0) -> Tensor:
        """Return a batch of uint8 images ``[n, C, H, W]`` with changed colours, rounded once, after the last change.

        As torchvision's: brightness blends with black, contrast with the mean grey of the image, saturation with the
        grey of the pixel. An image of one channel has no saturation.
        """
        batch = slice(start, start + len(images))
        pixels = images.float()
        for chosen in self.order[:, batch]:
            factor = self.factors[:, batch].gather(0, chosen[None]).view(-1, 1, 1, 1)
            is_contrast, is_saturation = ((chosen == number).view(-1, 1, 1, 1) for number in (1, 2))
            grey = _grey(pixels)
            other = torch.where(is_contrast, grey.mean((2, 3), keepdim=True), torch.where(is_saturation, grey, 0.0))
            pixels = (pixels * factor + other * (1 - factor)).clamp_(0, 255)
        return _to_pixels(pixels)


def _grey(pixels: Tensor) -> Tensor:
    """Return the luma of red, green and blue, or the mean of other channels, float32 ``[n, 1, H, W]``."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = (pixels[:, channel : channel + 1] for channel in range(3))
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _to_pixels(values: Tensor) -> Tensor:
    """Return the nearest pixel values of float ones in 0..255, uint8."""
    return values.round().to(torch.uint8)


class Normaliser:
    """Maps uint8 pixels to ``(x / 255 - mean) / std`` per channel, float32 in channels_last.

    That is ``x * gain - offset``, each float32 ``[1, C, 1, 1]``.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        """Take the training images' mean and standard deviation (of values in 0..1), one number per channel each."""
        spread = torch.tensor(std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.offset = torch.tensor(mean, dtype=torch.float32, device=device).view(1, -1, 1, 1) / spread
        self.gain = 1 / (255 * spread)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's input for uint8 images ``[N, C, H, W]``."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels.mul_(self.gain).sub_(self.offset)


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
    """Turns a trial's uint8 training batches into the network's inputs: all that comes before mixup and cutmix."""

    def __init__(
        self, spec: TrialSpec, dataset: Dataset, device: torch.device, dataset_bytes: int | None = None
    ) -> None:
        """Put nothing on the device yet; ``dataset_bytes`` is the bound of ``TrainingImages``."""
        self._spec, self._dataset, self._device, self._dataset_bytes = spec, dataset, device, dataset_bytes
        self._image_size = dataset.image_shape[1:]
        self._normalise = Normaliser(*input_normalisation(spec, dataset), device)
        magnitude = spec.randaugment_magnitude
        self._randaugment = RandAugment(magnitude, dataset.image_shape, device) if spec.randaugment_ops else None

    @cached_property
    def images(self) -> TrainingImages:
        """The training images, before the nuisance if the trial applies the true one to them."""
        train = self._dataset.train
        return TrainingImages(
            train.clean if self._spec.true_nuisance else train.images, self._device, self._dataset_bytes
        )

    def for_epoch(self, epoch: int, num_samples: int) -> Callable[[Tensor, int], Tensor]:
        """Draw the choices of an epoch and return what makes inputs of its batches."""
        spec, device = self._spec, self._device
        crop_rng = numpy_rng(spec.seed, "trial/placement", epoch)
        steps: list[Callable[[Tensor, int], Tensor]] = [
            CropFlip.draw(num_samples, spec.crop_padding, spec.flip, crop_rng, device)
        ]
        if spec.random_resized_crop:
            box_rng = numpy_rng(spec.seed, "trial/resized-crop", epoch)
            steps.append(ResizedCrop.draw(num_samples, spec.random_resized_crop, self._image_size, box_rng, device))
        if spec.color_jitter:
            color_rng = numpy_rng(spec.seed, "trial/color-jitter", epoch)
            steps.append(ColorJitter.draw(num_samples, spec.color_jitter, color_rng, device))
        operations_rng = numpy_rng(spec.seed, "trial/randaugment", epoch)
        operations = draw_operations(num_samples, spec.randaugment_ops, operations_rng)

        def inputs(images: Tensor, start: int) -> Tensor:
            for change in steps:
                images = change(images, start)
            if self._randaugment:
                images = self._randaugment(images, operations[:, start : start + len(images)])
            return self._normalise(images)

        return inputs


Blend = Callable[[Tensor, Loss, int], tuple[Tensor, Loss]]
"""``blend(inputs, loss, start)``: the blended inputs ``[n, C, H, W]`` of a batch, and the loss of their logits and the
labels that the batch had before."""


def epoch_blend(spec: TrialSpec, epoch: int, num_samples: int, device: torch.device | str = "cpu") -> Blend:
    """Return what blends each sample of an epoch's batches with another one of its batch, and the loss alike.

    That is mixup or cutmix; if a trial has both, each batch gets one of them, with equal probability. Without either,
    batches and losses stay as they are.
    """
    mixup, cutmix = (each(spec, epoch, num_samples, device) for each in (epoch_mixup, epoch_cutmix))
    if not spec.mixup_alpha:
        return cutmix
    if not spec.cutmix_alpha:
        return mixup
    batches = len(_batch_sizes(spec, num_samples))
    is_cutmix = numpy_rng(spec.seed, "trial/blend", epoch).random(batches) < 0.5

    def blend(inputs: Tensor, loss: Loss, start: int) -> tuple[Tensor, Loss]:
        return (cutmix if is_cutmix[start // spec.batch_size] else mixup)(inputs, loss, start)

    return blend


def epoch_mixup(spec: TrialSpec, epoch: int, num_samples: int, device: torch.device | str = "cpu") -> Blend:
    """Return the mixup of an epoch (Zhang et al. 2018, arXiv 1710.09412), with one lambda per batch.

    ``x = lambda * x_a + (1 - lambda) * x_b,  loss = lambda * loss(., y_a) + (1 - lambda) * loss(., y_b)``, lambda from
    Beta(alpha, alpha). With a ``mixup_alpha`` of 0 batches and losses stay as they are.
    """
    if not spec.mixup_alpha:
        return lambda inputs, loss, start: (inputs, loss)
    rng = numpy_rng(spec.seed, "trial/mixup", epoch)
    sizes = _batch_sizes(spec, num_samples)
    shares = rng.beta(spec.mixup_alpha, spec.mixup_alpha, len(sizes)).tolist()
    partners = _draw_partners(sizes, rng, device)

    def blend(inputs: Tensor, loss: Loss, start: int) -> tuple[Tensor, Loss]:
        share: float = shares[start // spec.batch_size]
        others = partners[start : start + len(inputs)]
        return inputs.mul(share).add_(inputs[others], alpha=1 - share), _blended_loss(loss, share, others)

    return blend


def epoch_cutmix(spec: TrialSpec, epoch: int, num_samples: int, device: torch.device | str = "cpu") -> Blend:
    """Return the cutmix of an epoch (Yun et al. 2019, arXiv 1905.04899), one box per batch.

    A box of the image is the partner's, and the loss counts both by their pixels. Lambda is from Beta(alpha, alpha);
    the box has a share of 1 - lambda of each image before it is cut at the border, and its centre is uniform. With a
    ``cutmix_alpha`` of 0 batches and losses stay as they are.
    """
    if not spec.cutmix_alpha:
        return lambda inputs, loss, start: (inputs, loss)
    rng = numpy_rng(spec.seed, "trial/cutmix", epoch)
    sizes = _batch_sizes(spec, num_samples)
    sides = np.sqrt(1 - rng.beta(spec.cutmix_alpha, spec.cutmix_alpha, len(sizes))).tolist()
    centres = rng.random((len(sizes), 2)).tolist()
    partners = _draw_partners(sizes, rng, device)

    def blend(inputs: Tensor, loss: Loss, start: int) -> tuple[Tensor, Loss]:
        batch = start // spec.batch_size
        others = partners[start : start + len(inputs)]
        down, across = (
            cutmix_interval(centre, sides[batch], size)
            for centre, size in zip(centres[batch], inputs.shape[2:], strict=True)
        )
        blended = inputs.clone()
        blended[:, :, down, across] = inputs[others, :, down, across]
        pixels = (down.stop - down.start) * (across.stop - across.start)
        return blended, _blended_loss(loss, 1 - pixels / inputs[0, 0].numel(), others)

    return blend


def cutmix_interval(centre: float, side: float, size: int) -> slice:
    """Return the pixels of an axis of ``size`` pixels that lie in a cutmix box, as torchvision rounds them.

    Args:
        centre: of the box, 0..1 of the axis.
        side: length of the box before it is cut at the border, 0..1 of the axis.
        size: pixels of the axis.
    """
    middle, half = int(centre * size), int(side / 2 * size)
    return slice(max(0, middle - half), min(size, middle + half))


def _batch_sizes(spec: TrialSpec, num_samples: int) -> list[int]:
    return [min(spec.batch_size, num_samples - start) for start in range(0, num_samples, spec.batch_size)]


def _draw_partners(sizes: list[int], rng: np.random.Generator, device: torch.device | str) -> Tensor:
    """Return for each sample of an epoch its partner's index in their batch, int64 ``[N]``."""
    return torch.from_numpy(np.concatenate([rng.permutation(size) for size in sizes])).to(device)


def _blended_loss(loss: Loss, share: float, others: Tensor) -> Loss:
    return lambda logits, labels: share * loss(logits, labels) + (1 - share) * loss(logits, labels[others])
