"""The base of all spec parts: immutable; an unknown field is an error that names the nearest known one."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticKnownError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Precision = Literal["auto", "bf16", "float32"]  # auto: bf16 where the device has units for it


class Spec(BaseModel):
    """Base of all parts: immutable, and an unknown field is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


def broken_rule(error: ValidationError) -> tuple[str, str]:
    """Return the field that breaks the first broken rule ("" if several do), and the rule."""
    first = error.errors(include_url=False)[0]
    rule = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return ".".join(str(part) for part in first["loc"]), rule


def unknown_name(what: str, name: str, known: list[str]) -> str:
    """Return the message for a name that is not among ``known``; suggest the nearest one."""
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} '{name}'; {remedy}"
