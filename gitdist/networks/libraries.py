"""Networks of timm and torchvision: ``timm:NAME`` and ``torchvision:NAME``, with the weights that each publishes.

Both libraries are slow to import, and timm is not always installed, so they are imported when they are used.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from gitdist.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of values in 0..1."""

_TORCHVISION_SIZES = {"vit_": lambda height, width: {"image_size": height}} | {
    "maxvit_": lambda height, width: {"input_size": (height, width)}
}


class Library(Protocol):
    """Networks of another package, by name."""

    @property
    def version(self) -> str:
        """The version of the package."""

    def names(self) -> Collection[str]:
        """Return the names of all networks."""

    def build(
        self, name: str, image_shape: tuple[int, int, int], num_classes: int, options: Mapping[str, Any]
    ) -> nn.Module:
        """Return a network with the library's own initial weights, which come from torch's global random state."""

    def normalisation(self, name: str) -> Normalisation:
        """Return the normalisation of the images that the published weights were trained on."""

    def download(self, name: str) -> Mapping[str, Tensor]:
        """Return the published weights, from the library's cache or its hub."""

    def convert(self, weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Return weights of another image size or an older layout as ``model`` has them, if the library can."""


class _Torchvision:
    """The classification networks of torchvision."""

    def __init__(self) -> None:
        from gitdist.torchvision_cpu import torchvision

        self._library = torchvision
        self.version: str = torchvision.__version__

    def names(self) -> Collection[str]:
        names: list[str] = self._library.models.list_models(module=self._library.models)
        return names

    def build(
        self, name: str, image_shape: tuple[int, int, int], num_classes: int, options: Mapping[str, Any]
    ) -> nn.Module:
        channels, height, width = image_shape
        sizes = [size(height, width) for start, size in _TORCHVISION_SIZES.items() if name.startswith(start)]
        settings = {"weights": None, "num_classes": num_classes, **(sizes[0] if sizes else {}), **options}
        model: nn.Module = self._library.models.get_model(name, **settings)
        if channels != 3:
            _replace_stem(model, channels)
        return model

    def normalisation(self, name: str) -> Normalisation:
        preset = self._library.models.get_model_weights(name).DEFAULT.transforms()
        return tuple(preset.mean), tuple(preset.std)

    def download(self, name: str) -> Mapping[str, Tensor]:
        weights = self._library.models.get_model_weights(name).DEFAULT
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
        return state

    def convert(self, weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        return weights


class _Timm:
    """The networks of timm; the name may have a tag of published weights, as in ``resnet18.a1_in1k``."""

    def __init__(self) -> None:
        import gitdist.torchvision_cpu  # noqa: F401  # timm imports torchvision

        try:
            import timm
        except ImportError as error:
            raise SpecError(
                f"trial.network timm:NAME needs the package timm, which cannot be imported ({error}); "
                "pip install 'gitdist[timm]' on every node"
            ) from None
        self._library = timm
        self.version: str = timm.__version__

    def names(self) -> Collection[str]:
        return [*self._library.list_models(), *self._library.list_pretrained()]

    def build(
        self, name: str, image_shape: tuple[int, int, int], num_classes: int, options: Mapping[str, Any]
    ) -> nn.Module:
        channels, *sides = image_shape
        published = self._library.get_pretrained_cfg(name)
        size = {"img_size": tuple(sides)} if published is not None and published.fixed_input_size else {}
        settings = {"num_classes": num_classes, "in_chans": channels, **size, **options}
        model: nn.Module = self._library.create_model(name, pretrained=False, **settings)
        return model

    def normalisation(self, name: str) -> Normalisation:
        published = self._library.get_pretrained_cfg(name) or self._library.models.PretrainedCfg()
        return tuple(published.mean), tuple(published.std)

    def download(self, name: str) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = self._library.create_model(name, pretrained=True).state_dict()
        return state

    def convert(self, weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        # By timm's convention, the module of a network has its conversion.
        conversion = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        return weights if conversion is None else dict(conversion(weights, model))


LIBRARIES: Mapping[str, type[_Torchvision] | type[_Timm]] = {"torchvision": _Torchvision, "timm": _Timm}


def find_library(network: str) -> tuple[Library, str] | None:
    """Return the library of a network and the network's name there; None if no library is named.

    Raises:
        SpecError: the library is not installed, or has no such network.
    """
    prefix, _, name = network.partition(":")
    if prefix not in LIBRARIES or prefix == network:
        return None
    library = _open_library(prefix)
    names = library.names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean '{prefix}:{near[0]}'?" if near else f"choose one of its {len(names)} networks"
        raise SpecError(f"trial.network '{network}': {prefix} {library.version} has no network of that name; {remedy}")
    return library, name


@cache
def _open_library(prefix: str) -> Library:
    return LIBRARIES[prefix]()


def _replace_stem(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for ``channels`` channels; each has weights of one of the former's three."""
    from torch import nn

    name, former = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3
    )
    stem = nn.Conv2d(
        channels,
        former.out_channels,
        former.kernel_size,  # type: ignore[arg-type]
        former.stride,  # type: ignore[arg-type]
        former.padding,  # type: ignore[arg-type]
        bias=former.bias is not None,
    )
    stem.weight = nn.Parameter(former.weight.detach()[:, [channel % 3 for channel in range(channels)]].clone())
    stem.bias = former.bias
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, stem)
