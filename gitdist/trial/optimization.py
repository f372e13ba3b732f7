"""How the weights of a trial change: what is trained, learning rate, gradient clipping, updates.

    epoch -> parameters that train now, modes of the layers, learning rates
    loss of each batch -> its share of the update's loss -> gradients -> clipped -> optimizer, once per update

An optimizer is a function of parameter groups, a schedule one of the epoch; their keyword-only parameters are fields of
``TrialSpec`` with the same names. A new one is a function, its line in the table and its name in ``spec/trial.py``.
"""

import math
from collections.abc import Callable
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from gitdist.networks.heads import head_name
from gitdist.networks.lora import lora_parameters
from gitdist.spec import TrialSpec
from gitdist.spec.trial import OptimizerName, ScheduleName
from gitdist.trial.plan import with_fields


def sgd(groups: list[dict[str, Any]], *, momentum: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; weight decay is part of the gradient."""
    # Fused: one pass over the weights per step instead of five.
    return torch.optim.SGD(groups, momentum=momentum, fused=True)


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return torch.optim.AdamW(groups, fused=True)


def step(epoch: int, *, lr_milestones: tuple[int, ...], lr_decay: float) -> float:
    """Fall by ``lr_decay`` after each milestone."""
    return float(lr_decay ** sum(epoch > milestone for milestone in lr_milestones))


def cosine(epoch: int, *, epochs: int) -> float:
    """Fall from 1 in the first epoch along half a cosine that would reach 0 after the last one.

    Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, without restarts.
    """
    return (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2


OPTIMIZERS: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {"sgd": sgd, "adamw": adamw}
SCHEDULES: dict[ScheduleName, Callable[..., float]] = {"step": step, "cosine": cosine}
"""The factor of ``lr`` in an epoch, counted from 1; the warm-up is another."""


def learning_rate(spec: TrialSpec, epoch: int) -> float:
    """Return the learning rate of an epoch: linear warm-up times the schedule."""
    warmup = min(1.0, epoch / spec.lr_warmup_epochs) if spec.lr_warmup_epochs else 1.0
    return float(spec.lr * warmup * with_fields(SCHEDULES[spec.schedule], spec)(epoch))


class Optimization:
    """Trains a classifier in place.

    While the backbone is frozen, all but the head is in evaluation mode: statistics of batch norm do not move, and
    dropout is off. Frozen parameters get no update and no weight decay. Under LoRA the backbone's own weights are
    frozen throughout, and so are the statistics of its batch norm.
    """

    def __init__(self, spec: TrialSpec, model: nn.Module) -> None:
        """Prepare training of ``model``, which is on its device."""
        self._spec, self._model = spec, model
        self._head = model.get_submodule(head_name(model))
        self._trained = _trained_parameters(spec, model, self._head)
        groups, self._factors = _parameter_groups(spec, self._head, self._trained)
        self.optimizer: torch.optim.Optimizer = with_fields(OPTIMIZERS[spec.optimizer], spec)(groups)

    def begin_epoch(self, epoch: int) -> float:
        """Set modes, frozen parameters and learning rates of an epoch, counted from 1; return the backbone's rate."""
        spec = self._spec
        is_frozen = spec.adapt == "head" or epoch <= spec.freeze_backbone_epochs
        now = {id(parameter) for parameter in (self._head.parameters() if is_frozen else self._trained)}
        for parameter in self._model.parameters():
            parameter.requires_grad_(id(parameter) in now)
        self._model.train(not is_frozen)
        self._head.train()
        if spec.adapt == "lora":
            for module in self._model.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.eval()
        lr = learning_rate(spec, epoch)
        for group, factor in zip(self.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = lr * factor
        return lr

    def learn(self, loss: Tensor, start: int, num_samples: int) -> bool:
        """Take the mean loss of a batch into its update; return whether it was the update's last batch.

        An update is of the mean of its batches' losses, each counted by its samples, so also the smaller one at an
        epoch's end has the gradient of a mean. A loss with class weights is weighted within each batch.

        Args:
            loss: a batch's loss, a scalar with its graph.
            start: the batch's first sample in the epoch.
            num_samples: samples of the epoch.
        """
        spec = self._spec
        of_update = spec.batch_size * spec.accumulate
        first = start - start % of_update
        end, update_end = (
            min(begin + size, num_samples) for begin, size in ((start, spec.batch_size), (first, of_update))
        )
        torch.autograd.backward(loss * ((end - start) / (update_end - first)))
        if end < update_end:
            return False
        if spec.clip_norm:
            nn.utils.clip_grad_norm_(self._trained, spec.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True


def _trained_parameters(spec: TrialSpec, model: nn.Module, head: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that a trial trains in some epoch, in the order of the model.

    What another package's network has frozen stays so.
    """
    match spec.adapt:
        case "full":
            return [parameter for parameter in model.parameters() if parameter.requires_grad]
        case "head":
            return list(head.parameters())
        case "lora":
            trained = {id(parameter) for parameter in (*lora_parameters(model), *head.parameters())}
            return [parameter for parameter in model.parameters() if id(parameter) in trained]
        case unknown:
            assert_never(unknown)


def _parameter_groups(
    spec: TrialSpec, head: nn.Module, trained: list[nn.Parameter]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the groups of one learning rate and one weight decay, and of each the factor of its learning rate.

    The head is apart if the backbone is frozen at first: a fused step needs all momentum of its group or none.
    """
    is_apart = spec.head_lr != 1 or spec.freeze_backbone_epochs > 0
    apart = {id(parameter) for parameter in head.parameters()} if is_apart else set()
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in trained:
        decays = spec.decay_norms or parameter.ndim > 1  # norms and biases are vectors
        groups.setdefault((id(parameter) in apart, spec.weight_decay if decays else 0.0), []).append(parameter)
    made = [{"params": of_group, "lr": spec.lr, "weight_decay": decay} for (_, decay), of_group in groups.items()]
    return made, [spec.head_lr if in_head else 1.0 for in_head, _ in groups]
