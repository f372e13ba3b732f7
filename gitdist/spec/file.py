"""Reads and writes study files: parses YAML, applies overrides, reports each mistake in one line."""

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gitdist.errors import Remedy, SpecError
from gitdist.spec.base import STORED, unknown_name
from gitdist.spec.campaign import Campaign, Member, change, expand
from gitdist.spec.mistakes import find_mistakes
from gitdist.spec.paths import absolute_paths
from gitdist.spec.strict_yaml import MAX_BYTES, YamlError, dump_yaml, load_yaml
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


def load_studies(path: Path, overrides: Sequence[str] = (), scale: str | None = None) -> list[StudySpec]:
    """Read a file as ``load_plan`` does, and return its studies: one, or those that its matrix makes."""
    plan = load_plan(path, overrides, scale)
    return [member.spec for member in plan.members] if isinstance(plan, Campaign) else [plan]


def load_plan(path: Path, overrides: Sequence[str] = (), scale: str | None = None) -> StudySpec | Campaign:
    """Read a study file, choose its scale and apply ``path.to.field=value`` overrides (values are YAML).

    A ``matrix`` makes several studies; if a scale or an override sets a field that the matrix varies, only the studies
    with that value remain. Relative paths in the file are relative to the file's directory, those in overrides to
    the working directory.

    Raises:
        SpecError: the file is missing or not a YAML mapping, or a field breaks its rule; the message names the field.
    """
    return read_plan(_read_mapping(path), path.absolute().parent, str(path), scale, overrides)


def read_plan(
    values: dict[str, Any], base: Path, origin: str, scale: str | None = None, overrides: Sequence[str] = ()
) -> StudySpec | Campaign:
    """Build a study or campaign from the values of a study file as ``load_plan`` does.

    Args:
        values: the fields.
        base: what relative paths among the values are relative to.
        origin: names the source of the values in errors.
        scale: as of ``load_plan``.
        overrides: as of ``load_plan``.
    """
    chosen = _choose_scale(absolute_paths(values, base), scale, origin)
    return _parse_overridden(chosen, overrides, origin, stored=False)


def override_plan(plan: StudySpec | Campaign, overrides: Sequence[str]) -> StudySpec | Campaign:
    """Apply ``path.to.field=value`` overrides to a study or a campaign, as ``load_plan`` does."""
    if not overrides:
        return plan
    single = isinstance(plan, StudySpec)
    values = plan.model_dump(mode="json", by_alias=True) if isinstance(plan, StudySpec) else dict(plan.values)
    return _parse_overridden(values, overrides, f"{'study' if single else 'campaign'} '{plan.name}'")


def parse_plan(values: dict[str, Any], origin: str, *, stored: bool = True) -> StudySpec | Campaign:
    """Build a study, or with a ``matrix`` a campaign, from plain values, as ``parse_study`` does."""
    common = {name: value for name, value in values.items() if name != "matrix"}
    if values.get("matrix") is None:
        return parse_study(common, origin, stored=stored)
    name = common.get("name")
    if name is None:
        raise SpecError(f"{origin}: name is required")
    if not isinstance(name, str):
        raise SpecError(f"{origin}: name must be text, but it is {name!r}", remedy="quote")
    members = tuple(
        Member(labels=labels, spec=parse_study(changed, f"{origin}, {changed['name']}", stored=stored))
        for labels, changed in expand(values["matrix"], common, origin)
    )
    return Campaign(name=name, title=members[0].spec.title, members=members, values=values)


def parse_study(values: dict[str, Any], origin: str, *, stored: bool = True) -> StudySpec:
    """Build a study from plain values.

    Args:
        values: the fields of a study file.
        origin: names the source of the values in errors.
        stored: whether gitdist stored the values; 0.5 stored numbers such as 1e-3 as text, and what is now refused.
    """
    try:
        return StudySpec.model_validate(values, context=STORED if stored else None)
    except ValidationError as error:
        mistake, *others = find_mistakes(error, values)
        more = f" (and {len(others)} more)" if others else ""
        remedy: Remedy | None = "quote" if mistake.is_unquoted else None
        raise SpecError(f"{origin}: {mistake}{more}", remedy=remedy, mistake=str(mistake)) from None


def dump_study(spec: StudySpec) -> str:
    """Return the resolved study as YAML, including all defaults."""
    return dump_yaml(spec.model_dump(mode="json", by_alias=True))


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = load_yaml(_read_text(path))
    except YamlError as error:
        raise SpecError(f"{path}, {error}") from None
    if not isinstance(values, dict):
        found = "empty" if values is None else "a list" if isinstance(values, list) else "one value"
        raise SpecError(f"{path}: a study file must be a mapping of fields, but it is {found}")
    return values


def _read_text(path: Path) -> str:
    remedy = "give the path of a YAML file, such as studies/quickstart.yaml"
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device may never end
            raise SpecError(f"{path} must be a file, but it is a directory, a pipe or a device; {remedy}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SpecError(f"{path} must have at most {MAX_BYTES:,} bytes to be a study file; {remedy}")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(f"no study file at {path}; {remedy}") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path}, line {line}: must be UTF-8 text, but it is not; save it as UTF-8") from None


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


def _parse_overridden(
    values: dict[str, Any], overrides: Sequence[str], origin: str, *, stored: bool = True
) -> StudySpec | Campaign:
    """Build a plan from values and overrides; a mistake is reported of the override after which it is there first."""
    stages = [values]
    for override in overrides:
        stages.append(_override(stages[-1], override))

    def mistake_in(stage: dict[str, Any]) -> object:
        try:
            parse_plan(stage, origin, stored=stored)
        except SpecError as error:
            return error.facts.get("mistake", str(error))
        return None

    try:
        return parse_plan(stages[-1], origin, stored=stored)
    except SpecError as error:
        mistake = error.facts.get("mistake", str(error))
        number = next(number for number, stage in enumerate(stages) if mistake_in(stage) == mistake)
        if number == 0:
            raise
        field = overrides[number - 1].partition("=")[0]
        remedy: Remedy | None = "quote_override" if error.remedy == "quote" else error.remedy
        message = re.sub(rf"^: {re.escape(field)}(?=[:.])", "", str(error).removeprefix(origin))
        raise SpecError(f"override {field}{message}", remedy=remedy) from None


def _override(values: dict[str, Any], override: str) -> dict[str, Any]:
    """Return the values with an override."""
    field, equals, text = override.partition("=")
    if not equals or not all(field.split(".")):
        raise SpecError(f"an override must be path.to.field=value, but it is '{override}'")
    try:
        value = load_yaml(text)
    except YamlError as error:
        raise SpecError(f"override {field}, {error}") from None
    changed = dict(values)
    change(changed, field, absolute_paths(value, Path.cwd(), field), f"override {field}")
    return changed
