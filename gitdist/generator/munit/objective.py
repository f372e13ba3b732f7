"""MUNIT's objective (Huang et al. 2018, section 3.2) with both domains the same data set.

With x_i a batch of domain i, (c_i, s_i) its codes, j the other domain and z_i ~ N(0, I), domain i contributes

    image_weight   * |decode_i(c_i, s_i) - x_i|             image reconstruction
    style_weight   * |style_i(x_ji) - z_i|                  of x_ji = decode_i(c_j, z_i), the translated image
    content_weight * |content_i(x_ji) - c_j|
    gan_weight     * (discriminator_i(x_ji) - 1)^2          least-squares GAN

to the generators' loss and (discriminator_i(x_ji))^2 + (discriminator_i(x_i) - 1)^2 to the discriminators'; |.| is the
mean absolute difference.

What is computed once:

- With one auto-encoder for both domains the two sums are the same function of two batches of the same distribution. So
  one batch is its own other domain (i = j) and its sum counts twice: the gradient's expectation is the published one's,
  at half of the encodings, decodings and discriminations.
- Reconstruction and translation are decoded as one batch; real and translated images are discriminated as one batch.
- The translated images for the discriminators' update also serve the auto-encoders' update of the same step: the
  auto-encoders have not changed in between, and the GAN term is evaluated after the discriminators' update, as
  published.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gitdist.generator.munit.networks import AutoEncoder, Discriminator
from gitdist.spec import MunitSpec

LOSS_NAMES = ("discriminator", "gan", "image", "style", "content")


@dataclass(frozen=True, kw_only=True)
class Translation:
    """The outputs of one domain's auto-encoder for a batch, with gradients."""

    reconstruction: Tensor  # of the domain's own images, float32 [N, C, H, W]
    translated: Tensor  # the other domain's contents in a drawn style, float32 [N, C, H, W]
    content: Tensor  # the codes that were translated, [N, C', H', W']
    translated_content: Tensor  # the codes of the translated images
    style: Tensor  # the drawn styles, float32 [N, style_dim]
    translated_style: Tensor  # the styles of the translated images


def translate(
    auto_encoders: Sequence[AutoEncoder], images: Sequence[Tensor], styles: Sequence[Tensor]
) -> list[Translation]:
    """Encode, decode and encode again the batches of all domains.

    Args:
        auto_encoders: one per domain; a single one is both domains.
        images: a batch per domain, ``[N, C, H, W]`` in -1..1, in the type in which the networks compute.
        styles: drawn styles per domain, float32 ``[N, style_dim]``.
    """
    contents = [encoder.content_encoder(batch) for encoder, batch in zip(auto_encoders, images, strict=True)]
    translations = []
    for index, (encoder, batch, style) in enumerate(zip(auto_encoders, images, styles, strict=True)):
        own, other = contents[index], contents[(index + 1) % len(contents)]
        both_styles = torch.cat((encoder.style_encoder(batch).float(), style))
        reconstruction, translated = encoder.decode(torch.cat((own, other)), both_styles).chunk(2)
        again = translated.to(batch.dtype)
        translations.append(
            Translation(
                reconstruction=reconstruction,
                translated=translated,
                content=other,
                translated_content=encoder.content_encoder(again),
                style=style,
                translated_style=encoder.style_encoder(again),
            )
        )
    return translations


def discriminator_loss(
    discriminators: Sequence[Discriminator], images: Sequence[Tensor], translations: Sequence[Translation]
) -> Tensor:
    """Return the discriminators' least-squares loss, a float32 scalar, averaged over the domains.

    No gradient flows into the translations.
    """
    losses = []
    for network, batch, translation in zip(discriminators, images, translations, strict=True):
        scores = network(torch.cat((translation.translated.detach().to(batch.dtype), batch))).float()
        fake, real = scores.chunk(2)
        losses.append(fake.square().mean() + (real - 1).square().mean())
    return torch.stack(losses).mean()


def generator_losses(
    discriminators: Sequence[Discriminator], images: Sequence[Tensor], translations: Sequence[Translation]
) -> dict[str, Tensor]:
    """Return the auto-encoders' unweighted losses, float32 scalars, averaged over the domains."""
    rows = []
    for network, batch, translation in zip(discriminators, images, translations, strict=True):
        gan = (network(translation.translated.to(batch.dtype)).float() - 1).square().mean()
        image = F.l1_loss(translation.reconstruction, batch.float())
        style = F.l1_loss(translation.translated_style.float(), translation.style)
        content = F.l1_loss(translation.translated_content.float(), translation.content.float())
        rows.append(torch.stack((gan, image, style, content)))
    return dict(zip(LOSS_NAMES[1:], torch.stack(rows).mean(0).unbind(), strict=True))


def weighted_sum(losses: dict[str, Tensor], spec: MunitSpec) -> Tensor:
    """Return the published sum over two domains: twice the weighted average over the domains."""
    return 2 * (
        spec.gan_weight * losses["gan"]
        + spec.image_weight * losses["image"]
        + spec.style_weight * losses["style"]
        + spec.content_weight * losses["content"]
    )
