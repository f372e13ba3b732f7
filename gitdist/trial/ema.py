"""An exponential moving average of a classifier's weights and statistics, which is evaluated instead of it."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """The average of the weights w_1 .. w_k after each of k steps, a later one counting more.

        sum_i decay^(k - i) w_i / sum_i decay^(k - i)

    It is divided by the sum of its weights, so the initial weights are no part of it, and after one step it is the
    model. Batch norm's statistics are averaged in the same way: those of the last step alone belong to other weights.
    Its count of batches is that of the last step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Average the state of ``model``, which is on its device; ``decay`` per step, above 0 and below 1."""
        self._model, self._decay = model, decay
        self._steps = 0
        self._averaged = deepcopy(model).requires_grad_(False)
        self._averages, self._current = _floating_tensors(self._averaged), _floating_tensors(model)

    def update(self) -> None:
        """Add the weights and statistics after a step."""
        self._steps += 1
        share = (1 - self._decay) / (1 - self._decay**self._steps)
        torch._foreach_lerp_(self._averages, self._current, share)  # in one pass

    @property
    def classifier(self) -> nn.Module:
        """The classifier with the averages; later steps change it."""
        for buffer, current in zip(self._averaged.buffers(), self._model.buffers(), strict=True):
            if not buffer.is_floating_point():
                buffer.copy_(current)
        return self._averaged

    def state_dict(self) -> dict[str, Any]:
        """Return all that later averages depend on: ``steps``, and the ``classifier``'s state dict."""
        return {"steps": self._steps, "classifier": self.classifier.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._steps = state["steps"]
        self._averaged.load_state_dict(state["classifier"])


def _floating_tensors(network: nn.Module) -> list[Tensor]:
    """Return the weights and the statistics of a network, but no count."""
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
