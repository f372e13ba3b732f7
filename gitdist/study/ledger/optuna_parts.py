"""Builds a sampler or pruner of Optuna, or of another package, with the options of a study file."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import optuna

from gitdist.errors import SpecError
from gitdist.plugins import describe_raised, load_attribute

T = TypeVar("T")


def build_part(
    base: type[T],
    field: str,
    name: str,
    known: Callable[..., T] | None,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
) -> T:
    """Return a sampler or a pruner.

    Args:
        base: Optuna's base class of such a part.
        field: of the study file that names it.
        name: its value.
        known: what builds the part if the name is one of ours; None = the name is ``module:attribute``.
        options: keyword arguments of the study file.
        given: other keyword arguments, of which the part gets those that it takes; ``options`` override them.

    Raises:
        SpecError: the part cannot be imported or built, or is not of the base class.
    """
    build = known or load_attribute(name, f"gitdist.{base.__name__.removeprefix('Base').lower()}s", field)
    taken = {option: value for option, value in given.items() if option in _parameters(build)}
    try:
        with warnings.catch_warnings():  # some parts and options are marked experimental; nothing else is silenced
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            part = build(**{**taken, **options})
    except Exception as error:
        shown = f" with the options {dict(options)}" if options else ""
        raise SpecError(
            f"{field} '{name}' cannot be built{shown}: {describe_raised(error)}; correct the options, or install the "
            "package that it names"
        ) from error
    if not isinstance(part, base):
        raise SpecError(
            f"{field} '{name}' must give an Optuna {base.__name__}, but gives {type(part).__name__}; name a class of "
            "that base, or a function that returns such an object"
        )
    return part


def _parameters(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(build).parameters
    except (TypeError, ValueError):  # not callable, or it does not tell
        return {}
