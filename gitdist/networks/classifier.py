"""P(y|x): what every network is, whichever layers it has, and how it runs fast."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gitdist.errors import TrialFailedError, first_line


class CosineHead(nn.Module):
    """LDAM's normalised last layer (Cao et al. 2019): ``scale`` times the cosine of features and class direction.

    The scale is here and not in the loss, so that the logits of every classifier are the log-odds of its P(y|x).
    """

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]`` between ``-scale`` and ``scale``."""
        return self.scale * functional.linear(functional.normalize(features), functional.normalize(self.weight))


class Classifier(nn.Module):
    """Features averaged over pixels, then a last layer; the logits are float32 also under bf16 autocast."""

    head: nn.Module
    num_features: int

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the last features, ``[N, num_features, h, w]``, of normalised images ``[N, C, H, W]``."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]``, float32, of normalised float32 images ``[N, C, H, W]``."""
        pooled = self.feature_maps(images).mean((2, 3), dtype=torch.float32)
        # bf16 logits would carry rounding of up to 0.03, the size of an eKLD worth measuring.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(pooled)
        return logits


def to_device(model: Classifier, device: torch.device) -> Classifier:
    """Put ``model`` on ``device`` in channels_last, the fastest layout of its convolutions, and return it."""
    moved: Classifier = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def compiled(model: Classifier, batch_size: int) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of ``model`` through torch.compile, which compiles the backward pass with it.

    Weights, statistics and their names stay those of ``model``. Batches of another size than ``batch_size`` (an
    epoch's last) run uncompiled: on a processor each size costs about a minute of compilation.

    Returns:
        A function of normalised images that returns logits; it raises TrialFailedError where compilation fails.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and needed by few

    fast = torch.compile(model, dynamic=False)

    def forward(images: Tensor) -> Tensor:
        if len(images) != batch_size:
            return model(images)  # type: ignore[no-any-return]
        try:
            return fast(images)  # type: ignore[no-any-return]
        except TorchDynamoException as error:
            reason = first_line(getattr(error, "inner_exception", error))
            raise TrialFailedError(
                f"trial.compile needs a network that torch.compile can compile here, but it says: {reason}; "
                "install a C++ compiler, or set trial.compile to false"
            ) from error

    return forward
