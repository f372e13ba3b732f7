"""An exponential moving average of a classifier's weights and statistics, which is evaluated in its place."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from gitdist.trial.classifier import Classifier


class WeightAverage:
    """The average of the weights w_1 .. w_k after each of k steps, a later one counting more.

        sum_i decay^(k - i) w_i / sum_i decay^(k - i)

    Divided by the sum of its weights, so the initial weights are no part of it, and the first steps' average is theirs.
    Batch norm's statistics are averaged in the same way: those of the last step alone belong to other weights. Its
    count of batches is that of the last step.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        """Average the state of ``model``, which is on its device, at ``decay`` a step, above 0 and below 1."""
        self._model, self._decay = model, decay
        self._steps = 0
        self._averaged = deepcopy(model).requires_grad_(False)
        self._averages, self._newest = (_averageable(network) for network in (self._averaged, model))

    def update(self) -> None:
        """Take in weights and statistics after a step."""
        self._steps += 1
        share = (1 - self._decay) / (1 - self._decay**self._steps)
        torch._foreach_lerp_(self._averages, self._newest, share)  # in one pass

    @property
    def classifier(self) -> Classifier:
        """The classifier with the averages; it is the same one after later steps."""
        for buffer, newest in zip(self._averaged.buffers(), self._model.buffers(), strict=True):
            if not buffer.is_floating_point():
                buffer.copy_(newest)
        return self._averaged

    def state(self) -> dict[str, Any]:
        """Return all that later averages depend on: ``steps``, and the ``classifier``'s state dict."""
        return {"steps": self._steps, "classifier": self.classifier.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self._steps = state["steps"]
        self._averaged.load_state_dict(state["classifier"])


def _averageable(network: Classifier) -> list[Tensor]:
    """Return the network's own tensors that have a mean: the weights and the statistics, but no count."""
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
