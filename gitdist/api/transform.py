"""What redraws images in the user's own code: a generator, or any function of images."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gitdist.api.arguments import like_images, type_name
from gitdist.api.generator import Generator
from gitdist.errors import SpecError
from gitdist.seeds import derive_seed

Transform = Generator | Callable[[Tensor], Tensor]
"""``transform(images)``: a new version of each image, of the same shape, type and device."""


def check_transform(function: str, transform: Transform) -> None:
    """Check that this is a generator or a function; raise SpecError if it is neither."""
    if not (isinstance(transform, Generator) or callable(transform)):
        found = type(transform).__name__
        raise SpecError(
            f"{function}: images are transformed by a gitdist.Generator or a function, but not by a {found}"
        )


def draw_versions(function: str, transform: Transform, images: Tensor, num_draws: int, seed: int) -> Iterator[Tensor]:
    """Yield versions of images ``[N, C, H, W]``, each of the shape, type and device of ``images``.

    A function that draws from torch's random state, of the CPU or the images' GPU, draws what ``seed`` determines; the
    state is restored.

    Raises:
        SpecError: the images do not fit a generator, or a function returns something else.
    """
    if isinstance(transform, Generator):
        for drawn in transform.draw_each(images, seed, num_draws):
            yield like_images(drawn, images)
        return
    devices = [images.device] if images.device.type == "cuda" else []
    for index in range(num_draws):
        with torch.random.fork_rng(devices=devices):
            state_seed = derive_seed(seed, "api/transform", index)
            torch.default_generator.manual_seed(state_seed)  # torch.manual_seed seeds all GPUs too
            for device in devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(state_seed)
            drawn = transform(images)
        if not isinstance(drawn, Tensor) or _form(drawn) != _form(images):
            raise SpecError(
                f"{function}: a transformation must return images like those that it gets, {_form(images)}, but it "
                f"returned {_form(drawn) if isinstance(drawn, Tensor) else type(drawn).__name__}"
            )
        yield drawn


def _form(images: Tensor) -> str:
    return f"{type_name(images)} {list(images.shape)} on {images.device}"
