"""One step of MUNIT's training: the discriminators' update, then the auto-encoders'."""

from typing import Any

import torch
from torch import Tensor, nn

from gitdist.device import Compute
from gitdist.generator.batches import BalancedBatches
from gitdist.generator.munit import AutoEncoder, Discriminator, initialise
from gitdist.generator.objective import discriminator_loss, generator_losses, translate, weighted
from gitdist.seeds import torch_rng
from gitdist.spec import MunitSpec

_BETAS = (0.5, 0.999)
_FIRST_STD = (None, 0.02)  # auto-encoders Kaiming, discriminators N(0, 0.02)
_SEED_NAMES = ("generator/auto-encoders", "generator/discriminators")


class MunitTrainer:
    """The networks and optimisers of one MUNIT training, and what one step does to them."""

    def __init__(self, spec: MunitSpec, batches: BalancedBatches, image_channels: int, compute: Compute) -> None:
        """Make the networks with their seeded first weights; the published method has ``auto_encoders: two``.

        Args:
            spec: settings of networks and training.
            batches: where images and styles come from.
            image_channels: channels of an image.
            compute: device and precision.
        """
        self.spec, self.batches = spec, batches
        domains = range(1 if spec.auto_encoders == "one" else 2)
        self.auto_encoders = [AutoEncoder(spec, image_channels) for _ in domains]
        self.discriminators = [Discriminator(spec, image_channels) for _ in domains]
        self._networks = (nn.ModuleList(self.auto_encoders), nn.ModuleList(self.discriminators))
        for network, std, name in zip(self._networks, _FIRST_STD, _SEED_NAMES, strict=True):
            initialise(network, std, torch_rng(spec.seed, name))
            network.to(compute.device)
        self._optimisers = [
            torch.optim.Adam(network.parameters(), spec.lr, _BETAS, weight_decay=spec.weight_decay, fused=True)
            for network in self._networks
        ]

    def step(self, step: int) -> Tensor:
        """Do one update of the discriminators, then one of the auto-encoders.

        Args:
            step: its number, from 0; chooses the batch and the learning rate.

        Returns:
            The losses in the order of ``LOSS_NAMES``, float32 ``[5]``, on the device.
        """
        domains = range(len(self.auto_encoders))
        images = [self.batches.images(step, domain) for domain in domains]
        styles = [self.batches.styles(step, domain) for domain in domains]
        translations = translate(self.auto_encoders, images, styles)
        loss = discriminator_loss(self.discriminators, images, translations)
        self._update(1, 2 * loss, step)
        self._networks[1].requires_grad_(False)  # the GAN term moves the auto-encoders only
        losses = generator_losses(self.discriminators, images, translations)
        self._update(0, weighted(losses, self.spec), step)
        self._networks[1].requires_grad_(True)
        return torch.stack((loss.detach(), *(value.detach() for value in losses.values())))

    def _update(self, index: int, loss: Tensor, step: int) -> None:
        optimiser = self._optimisers[index]
        for group in optimiser.param_groups:
            group["lr"] = self.spec.lr * 0.5 ** (step // self.spec.lr_halved_every)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def state(self) -> dict[str, Any]:
        """Return all that later steps depend on."""
        return {
            "networks": [network.state_dict() for network in self._networks],
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
        for network, weights in zip(self._networks, state["networks"], strict=True):
            network.load_state_dict(weights)
        for optimiser, moments in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(moments)
