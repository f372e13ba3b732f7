"""One searched trial field: its values, and the other fields that it depends on."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from gitdist.spec.base import List, Spec

Choice = str | int | float | bool | None
_MAX_STEPS = 10**15


class Dimension(Spec):
    """One searched trial field: exactly one of ``int: [low, high]``, ``float: [low, high]``, ``choice: [...]``."""

    int_: Annotated[tuple[int, int], List] | None = Field(None, alias="int")
    """Lowest and highest whole number of a range."""
    float_: Annotated[tuple[float, float], List] | None = Field(None, alias="float")
    """Lowest and highest number of a range."""
    choice: Annotated[tuple[Choice, ...], List, Field(min_length=1, max_length=1000)] | None = None
    """The values to choose from."""
    log: bool = False
    """Search a range on a logarithmic scale."""
    step: Annotated[float, Field(gt=0)] | None = None  # at most the range, and no more than 10^15 steps in it
    """Distance of the values in a range; null: all values."""
    points: int = Field(4, ge=1, le=10_000)
    """grid: number of values taken from a range."""
    when: dict[str, Annotated[tuple[Choice, ...], List]] = {}
    """Search this field only where each of these other searched fields has this value, or one of these values."""

    @field_validator("when", mode="before", json_schema_input_type=dict[str, Choice | list[Choice]])
    @classmethod
    def _listed(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        return {name: values if isinstance(values, list | tuple) else [values] for name, values in when.items()}

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        if sum(kind is not None for kind in (self.int_, self.float_, self.choice)) != 1:
            raise ValueError("a dimension has exactly one of int, float, choice")
        if self.choice and len(set(self.choice)) < len(self.choice):
            raise ValueError(f"the choices must differ, but they are {list(self.choice)}")
        bounds = self.bounds
        if bounds and not bounds[0] < bounds[1]:
            raise ValueError(f"the lower bound must be below the upper one, but {bounds[0]} >= {bounds[1]}")
        if bounds and self.log and bounds[0] <= 0:
            raise ValueError(f"a log range must be above 0, but starts at {bounds[0]}")
        if self.int_ and self.step and self.step != int(self.step):
            raise ValueError(f"the step of an int range must be whole, but it is {self.step}")
        if self.log and (self.step or self.choice):
            raise ValueError("log requires int or float, and no step")
        if self.step and not bounds:
            raise ValueError("step requires int or float")
        if bounds and self.step and not 1 <= (bounds[1] - bounds[0]) / self.step <= _MAX_STEPS:
            raise ValueError(
                f"step must divide the range into 1 to 10^15 steps, but it is {self.step} in a range of "
                f"{bounds[1] - bounds[0]}"
            )
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lower and upper bound of a range."""
        return self.int_ or self.float_

    @property
    def extremes(self) -> tuple[Choice, ...]:
        """The bounds of a range, or all choices."""
        return self.choice or self.int_ or self.float_ or ()

    @property
    def probes(self) -> tuple[Choice, ...]:
        """Values whose validity implies that of all others: the extremes, and of a float range one between them."""
        if self.float_ is None:
            return self.extremes
        low, high = self.float_
        between = low + self.step if self.step else low + (high - low) / math.pi
        return (low, high, min(between, high))

    @property
    def max_grid_values(self) -> int:
        """How many values a grid has at most: a logarithmic range of integers may have fewer."""
        if self.bounds is None:
            return len(self.extremes)
        low, high = self.bounds
        if self.step:
            return num_steps(low, high, self.step) + 1
        return min(self.points, int(high - low) + 1) if self.int_ else self.points

    def contains(self, value: Any) -> bool:
        """Return whether ``value`` is one of the dimension's."""
        if self.bounds is None:
            return value in self.extremes
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.bounds
        step = self.step or (1 if self.int_ else None)
        on_step = step is None or math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-8)
        return low <= value <= high and on_step

    def applies(self, params: Mapping[str, Any]) -> bool:
        """Return whether the field is searched in a trial with these parameters (including those it depends on)."""
        return all(name in params and params[name] in values for name, values in self.when.items())


def num_steps(low: float, high: float, step: float) -> int:
    """Return how often ``step`` fits into a range, in decimal arithmetic: 0.1 + 0.2 is 0.3."""
    return int((Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step)))


def max_grid_points(space: Mapping[str, Dimension], limit: int) -> int:
    """Return how many points a grid has at most, without building them; some number above ``limit`` if it is above."""
    choices = {other for dimension in space.values() for other in dimension.when}
    counts: dict[tuple[tuple[str, Choice], ...], int] = {(): 1}  # points by their values of fields others depend on
    for name in dependency_order(space):
        dimension, longer = space[name], dict[tuple[tuple[str, Choice], ...], int]()
        for chosen, count in counts.items():
            if not dimension.applies(dict(chosen)):
                longer[chosen] = count
            elif name in choices:
                longer |= {(*chosen, (name, value)): count for value in dimension.extremes}
            else:
                longer[chosen] = count * dimension.max_grid_values
        counts = longer
        if sum(counts.values()) > limit:
            break
    return sum(counts.values())


def dependency_order(space: Mapping[str, Dimension]) -> list[str]:
    """Return the fields in an order in which each comes after those that it depends on.

    Raises:
        ValueError: a field depends on one that is not searched, on no choice or, through a cycle, on itself.
    """
    for name, dimension in space.items():
        for other, values in dimension.when.items():
            known = space[other].choice if other in space else None
            if known is None:
                raise ValueError(f"{name}.when must name searched fields that are a choice, but {other} is not one")
            unknown = [value for value in values if value not in known]
            if unknown:
                raise ValueError(f"{name}.when.{other} must be among {list(known)}, but it has {unknown[0]!r}")
    order: list[str] = []
    while len(order) < len(space):
        ready = [name for name in space if name not in order and all(other in order for other in space[name].when)]
        if not ready:
            cycle = ", ".join(name for name in space if name not in order)
            raise ValueError(f"`when` must not form a cycle, but it does for {cycle}")
        order += ready
    return order
