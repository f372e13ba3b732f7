"""A trained classifier with everything that its users need: uint8 images in, probabilities out.

checkpoint (EMA weights if there are any) -> float32, evaluation mode -> normalise, network, softmax
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gitdist import __version__
from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import SpecError, StoreError, first_line
from gitdist.spec import TrialSpec
from gitdist.trial.augmentation import Normaliser, input_normalisation
from gitdist.trial.checkpoint import load_classifier
from gitdist.trial.evaluation import Predictor

EXAMPLE_BATCH = 2  # images: torch.export takes a batch of one for a constant

_COMPARED_IMAGES = 256
_BATCH_SIZE = 256


class ProbabilityModel(nn.Module):
    """P(y|x) of uint8 images ``[N, C, H, W]``: float32 ``[N, num_classes]``, on the CPU, for inference alone."""

    classifier: nn.Module
    gain: Tensor
    offset: Tensor

    def __init__(self, classifier: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Wrap a classifier of normalised images; mean and standard deviation per channel, of values in 0..1."""
        super().__init__()
        self.classifier = classifier
        normaliser = Normaliser(mean, std)
        self.register_buffer("gain", normaliser.gain)
        self.register_buffer("offset", normaliser.offset)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities of images.

        Raises:
            SpecError: they are not uint8, so their scale is unknown.
        """
        if images.dtype != torch.uint8:
            found = str(images.dtype).removeprefix("torch.")
            raise SpecError(f"the classifier's images must be uint8, but they are {found}; pass pixels 0..255 as uint8")
        logits = self.classifier(images.to(torch.float32) * self.gain - self.offset)
        return torch.softmax(logits, dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """The classifier of one trial of a study.

    Attributes:
        module: the classifier.
        spec: its training.
        study: the study's name.
        trial: the trial's number, or ``baseline``.
        class_names: in the order of the probabilities.
        image_shape: (C, H, W).
        mean: of the normalisation, per channel, of values in 0..1.
        std: likewise.
    """

    module: ProbabilityModel
    spec: TrialSpec
    study: str
    trial: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def load(cls, spec: TrialSpec, dataset: Dataset, directory: Path, *, study: str, trial: str) -> "TrainedModel":
        """Return the classifier in the last checkpoint of a trial's ``directory``.

        Raises:
            StoreError: there is no whole checkpoint of the last epoch, or its weights are of another network.
        """
        try:
            classifier = load_classifier(spec, dataset, directory, Compute.resolve("float32", "cpu"))
        except RuntimeError as error:  # names or shapes differ
            raise StoreError(
                f"the last checkpoint in {directory} must have the weights of trial.network {spec.network}, but it "
                f"has others ({_differences(error)}); restore the network's code or the checkpoint"
            ) from error
        classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        mean, std = input_normalisation(spec, dataset)
        return cls(
            module=ProbabilityModel(classifier, mean, std),
            spec=spec,
            study=study,
            trial=trial,
            class_names=dataset.class_names,
            image_shape=dataset.image_shape,
            mean=mean,
            std=std,
        )

    @property
    def example(self) -> Tensor:
        """A batch to trace the module with, uint8 ``[2, C, H, W]``."""
        return torch.zeros((EXAMPLE_BATCH, *self.image_shape), dtype=torch.uint8)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a user of a model file needs to know, as JSON values."""
        return {
            "study": self.study,
            "trial": self.trial,
            "network": self.spec.network,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "input": "uint8 [N, C, H, W]",
            "output": "probabilities, float32 [N, num_classes]",
            "gitdist": __version__,
        }

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return P(y|x), float32 ``[N, num_classes]``, of uint8 images ``[N, C, H, W]``."""
        with torch.inference_mode():
            parts = [self.module(torch.tensor(part)) for part in _batches(images)]
        found: NDArray[np.float32] = torch.cat(parts).numpy()
        return found

    def bf16_difference(self, dataset: Dataset) -> tuple[float, int]:
        """Return the largest difference to the probabilities of a bf16 evaluation, and on how many validation images.

        At most 256 images are compared, taken evenly from the validation split, which is ordered by class.
        """
        count = len(dataset.validation.labels)
        indices = np.unique(np.linspace(0, count - 1, min(count, _COMPARED_IMAGES)).round().astype(np.int64))
        images = dataset.validation.images[indices]
        with torch.inference_mode():
            predict = Predictor(self.module.classifier, dataset, Compute.resolve("bf16", "cpu"), (self.mean, self.std))
            rounded = predict(images).exp().numpy()
        return float(np.abs(rounded - self.probabilities(images)).max(initial=0.0)), len(images)


def _differences(error: RuntimeError) -> str:
    """Return what ``load_state_dict`` says after its first line, which is the same for all errors."""
    return first_line(RuntimeError(str(error).partition("\n")[2] or str(error)))


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[start : start + _BATCH_SIZE] for start in range(0, max(len(images), 1), _BATCH_SIZE)]
