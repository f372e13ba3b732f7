"""Reading and writing study files: YAML in, overrides applied, one clear line for every mistake."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gitdist.errors import SpecError
from gitdist.spec.base import broken_rule
from gitdist.spec.generator import GENERATOR_KINDS
from gitdist.spec.study import StudySpec


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read a study file and apply ``path.to.field=value`` overrides (values are YAML).

    Raises:
        SpecError: the file is missing or no YAML mapping, or a field breaks its rule; the message names the field.
    """
    values = _read_mapping(path)
    for override in overrides:
        _apply(values, override)
    return parse_study(values, str(path))


def override_study(spec: StudySpec, overrides: Sequence[str]) -> StudySpec:
    """Apply ``path.to.field=value`` overrides to a study.

    Raises:
        SpecError: a field breaks its rule; the message names it.
    """
    values = spec.model_dump(mode="json", by_alias=True)
    for override in overrides:
        _apply(values, override)
    return parse_study(values, f"study '{spec.name}'") if overrides else spec


def parse_study(values: dict[str, Any], place: str) -> StudySpec:
    """Build a study from plain values; ``place`` names their origin in errors.

    Raises:
        SpecError: a field breaks its rule.
    """
    try:
        return StudySpec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"{place}: {_describe(error)}") from None


def dump_study(spec: StudySpec) -> str:
    """Return the resolved study as YAML, every default visible."""
    return yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False, width=120)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise SpecError(
            f"no study file at {path}; give the path of a YAML file, such as studies/quickstart.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as text ({error}); give the path of a YAML file") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise SpecError(f"{place}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'})") from None
    if not isinstance(values, dict):
        raise SpecError(f"{path}: a study file is a mapping of fields, but this is {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    field, equals, text = override.partition("=")
    if not equals or not all(field.split(".")):
        raise SpecError(f"--set takes path.to.field=value, but got '{override}'")
    *parents, last = field.split(".")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SpecError(f"--set {field}: the value must be YAML, but is '{text}'") from None
    inner = values
    for name in parents:
        inner[name] = dict(inner[name]) if isinstance(inner.get(name), dict) else {}
        inner = inner[name]
    inner[last] = value


def _describe(error: ValidationError) -> str:
    """Return the first broken rule as one line: field path, rule, value, and how many more there are."""
    first, *others = error.errors(include_url=False)
    place = ".".join(_field_path(first["loc"]))
    _, message = broken_rule(error)
    value = first["input"]
    shown = "" if isinstance(value, dict) or first["type"] == "missing" else f", but it is {value!r}"
    if first["type"] == "missing":
        message = "is required"
    if first["type"] == "value_error" and isinstance(value, str):
        shown = ""
    more = f" (and {len(others)} more)" if others else ""
    return (f"{place}: " if place else "") + message + shown + more


def _field_path(loc: tuple[int | str, ...]) -> list[str]:
    """Return the path as the file has it: without the tag that chose between generator kinds."""
    parts = [str(part) for part in loc]
    if len(parts) > 1 and parts[0] == "generator" and parts[1] in GENERATOR_KINDS:
        del parts[1]
    return parts
