"""The base of all spec parts: immutable; an unknown field is an error that names the nearest known one."""

import difflib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError
from pydantic_core.core_schema import no_info_after_validator_function

STORED = "stored"  # context of the validation of values that gitdist stored

MANY = 1_000_000_000  # images of a data set, steps of a training: more than any has
LARGEST_FLOAT32 = 3.4e38
MANY_EPOCHS = 1_000_000
MANY_TRIALS = 100_000
ATTRIBUTE = "^[^:]+:."  # module:attribute


def _finite(options: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(options, allow_nan=False)  # artifacts are named by a hash of their JSON text
    except ValueError:
        raise ValueError("must have only finite numbers") from None
    return options


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=MANY)]
List = Strict(False)  # of a tuple: a file has lists
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Field(min_length=1)]
Options = Annotated[dict[str, JsonValue], AfterValidator(_finite)]  # keyword arguments of another package's function
Precision = Literal["auto", "bf16", "float32"]  # auto: bf16 where the device has units for it


class Spec(BaseModel):
    """Base of all parts: immutable, and an unknown field is an error that names the nearest known one.

    Numbers are finite, and values are not converted: a boolean or text is no number. But 2.0 is a whole number.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in values if isinstance(values, dict) else ():
            if name not in known:
                raise ValueError(unknown_name("field", str(name), known))
        return values

    @model_validator(mode="before")
    @classmethod
    def _read_numbers(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return values
        read = dict(values)
        for name, field in cls.model_fields.items():
            key, annotation = field.alias or name, cast(Any, field.annotation)
            if key in read:
                read[key] = _read_number(read[key], _plain_types(annotation), info.context == STORED)
        return read


@cache
def _plain_types(annotation: Any) -> frozenset[Any]:
    """Return the types of the single values in a field's annotation."""
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return frozenset().union(*map(_plain_types, parts)) if parts else frozenset([annotation])


def _read_number(value: Any, types: frozenset[Any], is_stored: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_read_number(each, types, is_stored) for each in value]
    if is_stored and isinstance(value, str) and types & {int, float} and str not in types:
        with suppress(ValueError):  # gitdist 0.5 stored 1e-3 as text
            value = float(value)
    is_whole = isinstance(value, float) and value.is_integer() and int in types and float not in types
    return int(value) if is_whole else value


@dataclass(frozen=True, eq=False)
class NameIn:
    """The rule that a name is a key of ``table``, which is read when a value is validated."""

    table: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.table)}

    def _check(self, name: str) -> str:
        if name not in self.table:
            *others, last = map(repr, self.table)
            raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
        return name


def name_or(names: Iterable[str], pattern: str = "") -> WithJsonSchema:
    """Return the JSON schema of one of ``names`` or of another text with ``pattern``, by default any."""
    return WithJsonSchema({"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": pattern}]})


def unknown_name(what: str, name: str, known: list[str]) -> str:
    """Return the message for a name that is not among ``known``; suggest the nearest one."""
    if not known:
        return f"unknown {what} '{name}': there is none; remove it"
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} '{name}'; {remedy}"
