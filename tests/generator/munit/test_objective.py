import copy

import pytest
import torch

from gitdist.generator.munit.networks import AutoEncoder, Discriminator, initialise
from gitdist.generator.munit.objective import discriminator_loss, generator_losses, translate, weighted_sum


@pytest.fixture
def networks(tiny):
    encoder, critic = AutoEncoder(tiny, 1), Discriminator(tiny, 1)
    initialise(encoder, None, torch.Generator().manual_seed(0))
    initialise(critic, 0.02, torch.Generator().manual_seed(1))
    return encoder, critic


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(3, 1, 28, 28, generator=rng) * 2 - 1, torch.randn(3, 8, generator=rng)


def test_losses_are_the_papers_terms(networks, tiny):
    encoder, critic = networks
    x, z = batch(0)
    made = translate([encoder], [x], [z])
    losses = generator_losses([critic], [x], made)
    content, style = encoder.content_encoder(x), encoder.style_encoder(x)
    translated = encoder.decode(content, z)
    assert losses["image"].item() == pytest.approx((encoder.decode(content, style) - x).abs().mean().item(), rel=1e-5)
    assert losses["style"].item() == pytest.approx(
        (encoder.style_encoder(translated) - z).abs().mean().item(), rel=1e-5
    )
    assert losses["content"].item() == pytest.approx(
        (encoder.content_encoder(translated) - content).abs().mean().item(), rel=1e-5
    )
    assert losses["gan"].item() == pytest.approx(((critic(translated) - 1) ** 2).mean().item(), rel=1e-5)
    expected = (critic(translated) ** 2).mean() + ((critic(x) - 1) ** 2).mean()
    assert discriminator_loss([critic], [x], made).item() == pytest.approx(expected.item(), rel=1e-5)
    total = losses["gan"] + 10 * losses["image"] + losses["style"] + losses["content"]
    assert weighted_sum(losses, tiny).item() == pytest.approx(2 * total.item(), rel=1e-6)


def test_one_shared_auto_encoder_has_the_mean_of_the_two_domain_gradients(networks, tiny):
    encoder, critic = networks
    x, z = batch(0)

    def gradient(num_domains: int) -> torch.Tensor:
        shared = copy.deepcopy(encoder)
        domains = ([shared] * num_domains, [critic] * num_domains, [x] * num_domains, [z] * num_domains)
        made = translate(domains[0], domains[2], domains[3])
        weighted_sum(generator_losses(domains[1], domains[2], made), tiny).backward()
        return torch.cat([parameter.grad.flatten() for parameter in shared.parameters()])

    torch.testing.assert_close(gradient(1), gradient(2), rtol=1e-3, atol=1e-5)


def test_with_two_auto_encoders_each_decodes_the_others_content(networks, tiny):
    first, _ = networks
    second = AutoEncoder(tiny, 1)
    initialise(second, None, torch.Generator().manual_seed(9))
    (x_a, z_a), (x_b, z_b) = batch(0), batch(1)
    made = translate([first, second], [x_a, x_b], [z_a, z_b])
    expected_a = first.decode(second.content_encoder(x_b), z_a)
    expected_b = second.decode(first.content_encoder(x_a), z_b)
    torch.testing.assert_close(made[0].translated, expected_a, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made[1].translated, expected_b, rtol=1e-4, atol=1e-5)


def test_the_discriminators_loss_does_not_reach_the_auto_encoder(networks):
    encoder, critic = networks
    x, z = batch(0)
    discriminator_loss([critic], [x], translate([encoder], [x], [z])).backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad is not None for parameter in critic.parameters())
