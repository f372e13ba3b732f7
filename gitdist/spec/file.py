"""Reading and writing study files: YAML in, overrides applied, one clear line for every mistake."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gitdist.errors import SpecError
from gitdist.spec.base import broken_rule, unknown_name
from gitdist.spec.campaign import Campaign, Member, change, expand
from gitdist.spec.generator import GENERATOR_KINDS
from gitdist.spec.paths import absolute_paths
from gitdist.spec.study import StudySpec


def load_study(path: Path, overrides: Sequence[str] = (), scale: str | None = None) -> StudySpec:
    """Read a study file, choose its scale and apply ``path.to.field=value`` overrides (values are YAML).

    Args:
        path: the file.
        overrides: changes, as on the command line.
        scale: one of those under ``scale`` in the file; None = the first of them.

    Raises:
        SpecError: the file is missing or no YAML mapping, or a field breaks its rule; the message names the field. Or
            it describes several studies.
    """
    plan = load_plan(path, overrides, scale)
    if isinstance(plan, Campaign):
        raise SpecError(
            f"{path}: this command takes one study, but the matrix makes {len(plan.members)} of it; "
            "add --set matrix=null --set name=NAME, and --set for the fields that it varies"
        )
    return plan


def load_plan(path: Path, overrides: Sequence[str] = (), scale: str | None = None) -> StudySpec | Campaign:
    """Read a study file as ``load_study`` does; with a ``matrix`` it is several studies.

    A scale or an override that sets a field which the matrix lists values of leaves the studies of that value alone.
    Relative paths in the file are relative to the file's directory, those in overrides to the working directory.

    Raises:
        SpecError: as ``load_study``.
    """
    values = absolute_paths(_read_mapping(path), path.absolute().parent)
    values = _choose_scale(values, scale, str(path))
    _override(values, overrides)
    return parse_plan(values, str(path))


def override_study(spec: StudySpec, overrides: Sequence[str]) -> StudySpec:
    """Apply ``path.to.field=value`` overrides to a study; relative paths are relative to the working directory.

    Raises:
        SpecError: a field breaks its rule; the message names it.
    """
    values = spec.model_dump(mode="json", by_alias=True)
    _override(values, overrides)
    return parse_study(values, f"study '{spec.name}'") if overrides else spec


def override_plan(plan: StudySpec | Campaign, overrides: Sequence[str]) -> StudySpec | Campaign:
    """Apply ``path.to.field=value`` overrides to a study or a campaign, as ``override_study`` does.

    Raises:
        SpecError: a field breaks its rule.
    """
    if isinstance(plan, StudySpec) or not overrides:
        return plan if isinstance(plan, Campaign) else override_study(plan, overrides)
    values = dict(plan.values)
    _override(values, overrides)
    return parse_plan(values, f"campaign '{plan.name}'")


def parse_plan(values: dict[str, Any], place: str) -> StudySpec | Campaign:
    """Build a study, or with a ``matrix`` a campaign, from plain values; ``place`` names their origin in errors.

    Raises:
        SpecError: a field breaks its rule.
    """
    common = {name: value for name, value in values.items() if name != "matrix"}
    if values.get("matrix") is None:
        return parse_study(common, place)
    name = common.get("name")
    if not isinstance(name, str):
        rule = "is required" if name is None else f"must be text, but it is {name!r}; quote it"
        raise SpecError(f"{place}: name {rule}")
    members = [
        Member(labels=labels, spec=parse_study(changed, f"{place}, {changed['name']}"))
        for labels, changed in expand(values["matrix"], common, place)
    ]
    return Campaign(name=name, title=members[0].spec.title, members=tuple(members), values=values)


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


def _scales(values: dict[str, Any], place: str) -> dict[str, dict[str, Any]]:
    found = values.get("scale") or {}
    if not isinstance(found, dict) or not all(isinstance(changes, dict) for changes in found.values()):
        raise SpecError(f"{place}: scale must map names to changes by field path, but it is {found!r}")
    for name in found:
        if not isinstance(name, str):
            raise SpecError(f"{place}: a scale's name must be text, but one is {name!r}; quote it")
    return found


def _choose_scale(values: dict[str, Any], scale: str | None, place: str) -> dict[str, Any]:
    """Return the file's values at a scale, whose name becomes part of the study's."""
    found = _scales(values, place)
    rest = {name: value for name, value in values.items() if name != "scale"}
    if not found and scale is None:
        return rest
    if scale is None:
        scale = next(iter(found))
    if scale not in found:
        raise SpecError(f"{place}: " + (unknown_name("scale", scale, list(found)) if found else "it has no scales"))
    for path, value in found[scale].items():
        change(rest, str(path), value, f"{place}: scale.{scale}")
    return {**rest, "name": f"{rest['name']}-{scale}"} if isinstance(rest.get("name"), str) else rest


def _override(values: dict[str, Any], overrides: Sequence[str]) -> None:
    for override in overrides:
        field, equals, text = override.partition("=")
        if not equals or not all(field.split(".")):
            raise SpecError(f"--set takes path.to.field=value, but got '{override}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SpecError(f"--set {field}: the value must be YAML, but is '{text}'") from None
        change(values, field, absolute_paths(value, Path.cwd(), field), "--set")


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
