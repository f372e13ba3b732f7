import pytest
import torch
import torch.nn.functional as F

from gitdist.generator.normalisation import normalise


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def test_adain_equals_the_formula_pixel_by_pixel():
    x, scale, shift = random(2, 3, 4, 5), random(2, 3, 1, 1, seed=1), random(2, 3, 1, 1, seed=2)
    result = normalise(x, "pixels", scale, shift)
    for n in range(2):
        for c in range(3):
            pixels = x[n, c].flatten().tolist()
            mean = sum(pixels) / 20
            std = (sum((p - mean) ** 2 for p in pixels) / 20 + 1e-5) ** 0.5
            expected = scale[n, c] * (x[n, c] - mean) / std + shift[n, c]
            torch.testing.assert_close(result[n, c], expected)


def test_layer_norm_divides_by_the_unbiased_deviation_of_the_image_plus_eps():
    x, gain, bias = random(2, 3, 4, 5), random(3, 1, 1, seed=1), random(3, 1, 1, seed=2)
    expected = torch.stack([gain * (image - image.mean()) / (image.std() + 1e-5) + bias for image in x])
    torch.testing.assert_close(normalise(x, "image", gain, bias), expected)


def test_without_affine_it_is_the_librarys_instance_norm():
    x = random(4, 3, 6, 6).float()
    torch.testing.assert_close(normalise(x, "pixels"), F.instance_norm(x, eps=1e-5))


@pytest.mark.parametrize(("over", "shape"), [("pixels", (2, 3, 1, 1)), ("image", (3, 1, 1))])
def test_gradients_equal_finite_differences(over, shape):
    x, gain, bias = random(2, 3, 3, 4), random(*shape, seed=1), random(*shape, seed=2)
    inputs = tuple(tensor.requires_grad_() for tensor in (x, gain, bias))
    assert torch.autograd.gradcheck(lambda *args: normalise(args[0], over, args[1], args[2]), inputs)
    assert torch.autograd.gradcheck(lambda image: normalise(image, over), (x,))


@pytest.mark.parametrize("over", ["pixels", "image"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_image_stays_finite_forwards_and_backwards(over, dtype):
    x = torch.full((2, 3, 4, 4), 7.3, dtype=dtype, requires_grad=True)
    y = normalise(x, over)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()


def test_memory_format_is_kept():
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    affine = torch.randn(2, 4, 1, 1)
    assert normalise(x, "pixels", affine, affine).is_contiguous(memory_format=torch.channels_last)
