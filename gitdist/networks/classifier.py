"""How a classifier runs fast: memory layout and torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gitdist.errors import TrialFailedError, first_line


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Put ``model`` on ``device`` in channels_last, the fastest layout of its convolutions, and return it."""
    moved: nn.Module = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def compiled(model: nn.Module, batch_size: int) -> Callable[[Tensor], Tensor]:
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
