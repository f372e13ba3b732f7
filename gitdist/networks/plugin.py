"""Networks of other packages: ``trial.network: package.module:attribute``, or an entry point of ``gitdist.networks``.

    attribute(image_shape, num_classes, **options) -> nn.Module     of ``[N, C, H, W]`` to logits ``[N, num_classes]``
    attribute.version                                               optional, text or an integer

``image_shape`` is ``(C, H, W)``; ``options`` are ``trial.network_options``. Its last layer is a linear one, which
gitdist replaces by its own. Change ``version`` whenever the same options give another network: trials share their first
epochs by target, options and version. The module must be importable on every node of the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from gitdist.errors import GitdistError, SpecError
from gitdist.plugins import describe_raised, load_attribute

if TYPE_CHECKING:  # slow to import
    from torch import nn

_ENTRY_POINTS = "gitdist.networks"


def is_installed(name: str) -> bool:
    """Return whether an installed package has an entry point of that name."""
    return name in entry_points(group=_ENTRY_POINTS).names


def build_plugin(
    target: str, image_shape: tuple[int, int, int], num_classes: int, options: Mapping[str, Any]
) -> nn.Module:
    """Return the network that a factory makes.

    Raises:
        SpecError: the factory cannot be imported or called, or returns something else.
    """
    from torch import nn

    factory = load_attribute(target, _ENTRY_POINTS, "trial.network")
    if not callable(factory):
        raise _error(target, "must be a function or a class", f"it is of type {type(factory).__name__}")
    try:
        network = factory(image_shape, num_classes, **options)
    except (GitdistError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _error(target, "must make a network", f"it raised {describe_raised(error)}") from error
    if not isinstance(network, nn.Module):
        raise _error(target, "must return a torch.nn.Module", f"it returned one of type {type(network).__name__}")
    return network


def plugin_version(target: str) -> str | int | None:
    """Return the version that a factory states; raise SpecError if it cannot be imported or states another type."""
    version = getattr(load_attribute(target, _ENTRY_POINTS, "trial.network"), "version", None)
    if version is not None and not isinstance(version, str | int):
        raise _error(target, "must have a version that is text or an integer", f"it is {version!r}")
    return version


def _error(target: str, rule: str, found: str) -> SpecError:
    return SpecError(f"trial.network '{target}' {rule}, but {found}; fix it or trial.network_options")
