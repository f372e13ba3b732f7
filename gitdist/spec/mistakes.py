"""Words what pydantic finds wrong in a study: each field that breaks a rule, the rule, and the value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_LONGEST_VALUE = 200  # characters
_RULES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "invalid_key": "must have only text as keys",
    "missing": "is required",
    "invalid-json-value": "must be text, a number, true, false, null, a list or a mapping",
    "model_attributes_type": "must be a mapping of fields",
    "model_type": "must be a mapping of fields",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "union_tag_not_found": "kind is required",
}
_RULES_WITH_LIMIT = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be greater than or equal to {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be less than or equal to {le}",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}, but it is '{tag}'",
}


@dataclass(frozen=True)
class Mistake:
    """A field that breaks a rule."""

    field: str  # its path; empty for the values as a whole
    rule: str
    value: str  # what follows the rule in a message; may be empty
    is_unquoted: bool  # a number, or true or false, where text is required

    def __str__(self) -> str:
        return f"{self.field}{': ' if self.field else ''}{self.rule}{self.value}"


def find_mistakes(error: ValidationError, values: Mapping[str, Any]) -> list[Mistake]:
    """Return the mistakes in values, the first one first.

    Where a field takes values of several kinds, pydantic reports what is wrong with each kind. These are one mistake.
    """
    by_path: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(tuple(_path_in(values, details)), []).append(details)
    first = next(iter(by_path))
    deepest = max((path for path in by_path if path[: len(first)] == first), key=len)  # of the kind that was meant
    paths = [deepest, *(path for path in by_path if path[: len(first)] != first)]
    return [_mistake(".".join(path), by_path[path]) for path in paths]


def _path_in(values: Any, details: ErrorDetails) -> Iterator[str]:
    """Yield the parts of a mistake's path that are in the values, without the names of kinds of values."""
    parts = details["loc"]
    if parts[-1:] == ("[key]",):
        parts = parts[:-2]
    for part in parts:
        if (isinstance(values, Mapping) and part in values) or (
            isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        ):
            values = values[part]  # type: ignore[index]
            yield str(part)
    if details["type"] == "missing":
        yield str(parts[-1])


def _mistake(field: str, found: list[ErrorDetails]) -> Mistake:
    found = [details for details in found if details["type"] == "value_error"] or found  # a rule of this package
    details = found[0]
    if details["loc"][-1:] == ("[key]",):
        return Mistake(field, "must have only text as keys", f", but one is {_shown(details['input'])}", True)
    rules = list(dict.fromkeys(map(_rule, found)))
    rule = " or ".join([rules[0], *(other.removeprefix("must be ") for other in rules[1:])])
    value = details["input"]
    own = details["type"] == "value_error"
    says_value = isinstance(value, dict) or details["type"] == "missing" or (own and isinstance(value, str))
    is_unquoted = details["type"] == "string_type" and isinstance(value, bool | int | float) and len(found) == 1
    return Mistake(field, rule, "" if says_value else f", but it is {_shown(value)}", is_unquoted)


def _rule(details: ErrorDetails) -> str:
    kind, facts = details["type"], details.get("ctx", {})
    if kind in _RULES:
        return _RULES[kind]
    if kind in _RULES_WITH_LIMIT:
        return _RULES_WITH_LIMIT[kind].format(**{name: _plain(fact) for name, fact in facts.items()})
    return details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _plain(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() and abs(limit) < 1e15 else limit


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
