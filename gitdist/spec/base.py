"""The base of all spec parts: immutable; an unknown field is an error that names the nearest known one."""

import difflib
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticKnownError

STORED = "stored"  # context of the validation of values that gitdist stored

MANY = 1_000_000_000  # images of a data set, steps of a training: more than any has
LARGEST_FLOAT32 = 3.4e38
MANY_EPOCHS = 1_000_000
MANY_TRIALS = 100_000


def _number(value: Any, info: ValidationInfo) -> Any:
    # To gitdist 0.5, 1e-3 was text, and a number only where a field needs one.
    if isinstance(value, str) and info.context == STORED:
        for number in (int, float):
            with suppress(ValueError):
                return number(value)
    return value


def _whole_number(value: Any, info: ValidationInfo) -> Any:
    value = _number(value, info)
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float, BeforeValidator(_number)]
Integer = Annotated[int, BeforeValidator(_whole_number)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Integer, Field(ge=1, le=MANY)]
List = Strict(False)  # of a tuple: a file has lists
Seed = Annotated[Integer, Field(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Field(min_length=1)]
Precision = Literal["auto", "bf16", "float32"]  # auto: bf16 where the device has units for it


class Spec(BaseModel):
    """Base of all parts: immutable, and an unknown field is an error that names the nearest known one.

    Numbers are finite, and no value is converted: neither a boolean nor text is a number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in values if isinstance(values, dict) else ():
            if name not in known:
                raise ValueError(unknown_name("field", str(name), known))
        return values


def name_in(table: Mapping[str, Any]) -> AfterValidator:
    """Return the rule that a name is a key of ``table``, which is read when a value is validated."""

    def check(name: str) -> str:
        if name not in table:
            *others, last = map(repr, table)
            raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
        return name

    return AfterValidator(check)


def unknown_name(what: str, name: str, known: list[str]) -> str:
    """Return the message for a name that is not among ``known``; suggest the nearest one."""
    if not known:
        return f"unknown {what} '{name}': there is none; remove it"
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} '{name}'; {remedy}"
