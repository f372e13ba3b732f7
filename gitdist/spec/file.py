"""Reads and writes study files: parses YAML, applies overrides, reports each mistake in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gitdist.errors import SpecError
from gitdist.spec.base import broken_rule, unknown_name
from gitdist.spec.campaign import Campaign, Member, change, expand
from gitdist.spec.paths import absolute_paths
from gitdist.spec.study import StudySpec


def load_study(path: Path, overrides: Sequence[str] = (), scale: str | None = None) -> StudySpec:
    """Read a file of one study as ``load_plan`` does."""
    plan = load_plan(path, overrides, scale)
    if isinstance(plan, Campaign):
        raise SpecError(
            f"{path}: this command takes one study, but the matrix makes {len(plan.members)}; "
            "override matrix=null, name=NAME and the fields that the matrix varies"
        )
    return plan


def load_plan(path: Path, overrides: Sequence[str] = (), scale: str | None = None) -> StudySpec | Campaign:
    """Read a study file, choose its scale and apply ``path.to.field=value`` overrides (values are YAML).

    A ``matrix`` makes several studies; if a scale or an override sets a field that the matrix varies, only the studies
    with that value remain. Relative paths in the file are relative to the file's directory, those in overrides to
    the working directory.

    Raises:
        SpecError: the file is missing or not a YAML mapping, or a field breaks its rule; the message names the field.
    """
    values = absolute_paths(_read_mapping(path), path.absolute().parent)
    values = _choose_scale(values, scale, str(path))
    _override(values, overrides)
    return parse_plan(values, str(path))


def override_plan(plan: StudySpec | Campaign, overrides: Sequence[str]) -> StudySpec | Campaign:
    """Apply ``path.to.field=value`` overrides to a study or a campaign, as ``load_plan`` does."""
    if not overrides:
        return plan
    single = isinstance(plan, StudySpec)
    values = plan.model_dump(mode="json", by_alias=True) if isinstance(plan, StudySpec) else dict(plan.values)
    _override(values, overrides)
    return parse_plan(values, f"{'study' if single else 'campaign'} '{plan.name}'")


def parse_plan(values: dict[str, Any], origin: str) -> StudySpec | Campaign:
    """Build a study, or with a ``matrix`` a campaign, from plain values; ``origin`` names their source in errors."""
    common = {name: value for name, value in values.items() if name != "matrix"}
    if values.get("matrix") is None:
        return parse_study(common, origin)
    name = common.get("name")
    if not isinstance(name, str):
        rule = "is required" if name is None else f"must be text, but it is {name!r}; quote it"
        raise SpecError(f"{origin}: name {rule}")
    members = tuple(
        Member(labels=labels, spec=parse_study(changed, f"{origin}, {changed['name']}"))
        for labels, changed in expand(values["matrix"], common, origin)
    )
    return Campaign(name=name, title=members[0].spec.title, members=members, values=values)


def parse_study(values: dict[str, Any], origin: str) -> StudySpec:
    """Build a study from plain values; ``origin`` names their source in errors."""
    try:
        return StudySpec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"{origin}: {_describe(error)}") from None


def dump_study(spec: StudySpec) -> str:
    """Return the resolved study as YAML, including all defaults."""
    return yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False, width=120)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SpecError(
            f"no study file at {path}; give the path of a YAML file, such as studies/quickstart.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as text ({error}); give the path of a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', None) or 'unreadable'})") from None
    if not isinstance(values, dict):
        raise SpecError(f"{path}: a study file must be a mapping of fields, but this is {type(values).__name__}")
    return values


def _choose_scale(values: dict[str, Any], scale: str | None, origin: str) -> dict[str, Any]:
    """Return the file's values at a scale, whose name is appended to the study's name."""
    scales = values.get("scale") or {}
    if not isinstance(scales, dict) or not all(isinstance(changes, dict) for changes in scales.values()):
        raise SpecError(f"{origin}: scale must map names to changes by field path, but it is {scales!r}")
    for name in scales:
        if not isinstance(name, str):
            raise SpecError(f"{origin}: a scale's name must be text, but one is {name!r}; quote it")
    rest = {name: value for name, value in values.items() if name != "scale"}
    if not scales and scale is None:
        return rest
    if scale is None:
        scale = next(iter(scales))
    if scale not in scales:
        raise SpecError(f"{origin}: " + (unknown_name("scale", scale, list(scales)) if scales else "it has no scales"))
    for path, value in scales[scale].items():
        change(rest, str(path), value, f"{origin}: scale.{scale}")
    return {**rest, "name": f"{rest['name']}-{scale}"} if isinstance(rest.get("name"), str) else rest


def _override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    for override in overrides:
        field, equals, text = override.partition("=")
        if not equals or not all(field.split(".")):
            raise SpecError(f"an override must be path.to.field=value, but it is '{override}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SpecError(f"override {field}: the value must be YAML, but it is '{text}'") from None
        change(values, field, absolute_paths(value, Path.cwd(), field), f"override {field}")


def _describe(error: ValidationError) -> str:
    """Return the first broken rule as one line: field path, rule, value, and how many more there are."""
    first, *others = error.errors(include_url=False)
    path = [str(part) for part in first["loc"]]
    if path[:1] == ["generator"]:
        del path[1:2]  # the generator's kind, which is not a field of the file
    field = f"{'.'.join(path)}: " if path else ""
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "missing":
        return f"{field}is required{more}"
    value = first["input"]
    rule_has_value = isinstance(value, dict) or (first["type"] == "value_error" and isinstance(value, str))
    return field + broken_rule(error)[1] + ("" if rule_has_value else f", but it is {value!r}") + more
