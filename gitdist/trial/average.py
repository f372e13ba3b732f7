"""An exponential moving average of a classifier's weights (Polyak and Juditsky 1992), which is evaluated in its place."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from gitdist.trial.classifier import Classifier


class WeightAverage:
    """The average of the weights w_1 .. w_k after each of k steps, a later one counting more.

        sum_i decay^(k - i) w_i / sum_i decay^(k - i)

    Divided by the sum of its weights, so the initial weights are no part of it, and the first steps' average is theirs.
    Batch norm's statistics are not averaged, but those of the last step.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        """Average the weights of ``model``, which is on its device, at ``decay`` a step, above 0 and below 1."""
        self._model, self._decay = model, decay
        self._steps = 0
        self._averaged = deepcopy(model).requires_grad_(False)
        self._pair = [list(network.parameters()) for network in (self._averaged, model)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self._steps += 1
        averages, weights = self._pair
        torch._foreach_lerp_(averages, weights, (1 - self._decay) / (1 - self._decay**self._steps))

    @property
    def classifier(self) -> Classifier:
        """The classifier with the averaged weights; it is the same one after later steps."""
        for buffer, newest in zip(self._averaged.buffers(), self._model.buffers(), strict=True):
            buffer.copy_(newest)
        return self._averaged

    def state(self) -> dict[str, Any]:
        """Return all that later averages depend on: ``steps`` and ``weights``, the parameters by name."""
        return {"steps": self._steps, "weights": dict(self._averaged.named_parameters())}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self._steps = state["steps"]
        self._averaged.load_state_dict(state["weights"], strict=False)
