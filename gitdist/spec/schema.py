"""The JSON schema of a study file, by which editors complete and check fields."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from gitdist.spec.search import METHOD
from gitdist.spec.study import StudySpec
from gitdist.spec.trial import TrialSpec

Schema = dict[str, Any]


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out pydantic's titles of fields, which editors would show in place of the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False for every field."""
        return False


def study_file_schema() -> Schema:
    """Return the JSON schema (draft 2020-12) of a study file.

    It has the fields of ``StudySpec`` with descriptions, defaults and names, and what is read before them: ``scale``
    and ``matrix``, whose changes name fields by their paths. Rules that relate several fields are not part of it.
    """
    study = StudySpec.model_json_schema(schema_generator=_WithoutTitles)
    definitions: dict[str, Schema] = study.pop("$defs")
    for definition in (study, *definitions.values()):
        _tidy(definition)
    for part in study["properties"]["generator"]["oneOf"]:
        kind = definitions[_name(part)]
        kind["required"] = ["kind", *kind.get("required", [])]
    _describe_search(study, definitions)

    fields: dict[str, list[str]] = {}
    for path, pointer in _paths(study, definitions, "#"):
        fields.setdefault(path, []).append(pointer)
    values = {path: {"anyOf": [_reference(pointer) for pointer in pointers]} for path, pointers in fields.items()}
    free = "|".join(re.escape(path) for path, pointers in fields.items() if _is_free(pointers[0], study, definitions))
    changes: Schema = {
        "type": "object",
        "properties": values,
        "patternProperties": {rf"^({free})\..+": {}},
        "additionalProperties": False,
    }
    definitions["Changes"] = changes
    definitions["Labels"] = {
        "description": "Labels, and what each changes by field path.",
        **_mapping({"$ref": "#/$defs/Changes"}),
    }
    definitions["Matrix"] = _matrix(values, free)
    definitions["ScaleChanges"] = {
        **changes,
        "properties": {**values, "matrix": _reference("#/$defs/Matrix")},
        "patternProperties": {**changes["patternProperties"], r"^matrix\..+": {}},
    }
    study["properties"] |= {
        "matrix": _optional("Makes one study of every combination of these values.", {"$ref": "#/$defs/Matrix"}),
        "scale": _optional(
            "Sizes of the study, and what each changes by field path; the first one is used unless another is chosen.",
            _mapping({"$ref": "#/$defs/ScaleChanges"}),
        ),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **study,
        "title": "gitdist study",
        "$defs": definitions,
    }


def _tidy(definition: Schema) -> None:
    """Put descriptions into one line, and remove defaults that only repeat those of another definition."""
    for part in (definition, *definition.get("properties", {}).values()):
        if "description" in part:
            part["description"] = re.sub(r"\s+", " ", inspect.cleandoc(part["description"])).replace("``", "`")
        if isinstance(part.get("default"), dict) and part["default"]:
            del part["default"]


def _describe_search(study: Schema, definitions: Mapping[str, Schema]) -> None:
    """Add which trial fields methods, spaces and points may have, and the defaults that depend on other fields."""
    trial, profile, search = (definitions[name]["properties"] for name in ("TrialSpec", "ProfileSpec", "SearchSpec"))
    for fields, name in ((trial, "lr_milestones"), (profile, "exponent")):
        description, value = fields[name].pop("description"), fields[name]
        fields[name] = {"default": None, **_optional(description, value)}
    searched = {"enum": [METHOD, *TrialSpec.model_fields]}
    study["properties"]["methods"]["additionalProperties"] = {"$ref": "#/$defs/TrialSpec"}
    search["space"]["propertyNames"] = searched
    definitions["Dimension"]["properties"]["when"]["propertyNames"] = searched
    points = {name: _reference(f"#/$defs/TrialSpec/properties/{name}") for name in trial}
    search["try_first"]["items"] = {
        "type": "object",
        "properties": {METHOD: {"type": "string"}, **points},
        "additionalProperties": False,
    }


def _paths(schema: Schema, definitions: Mapping[str, Schema], pointer: str) -> Iterator[tuple[str, str]]:
    """Yield the path of every field, and where its schema is; several kinds of generators may have the same path."""
    for name, field in schema.get("properties", {}).items():
        yield name, f"{pointer}/properties/{name}"
        for part in (field, *field.get("anyOf", ()), *field.get("oneOf", ())):
            if "$ref" in part:
                for path, inner in _paths(definitions[_name(part)], definitions, part["$ref"]):
                    yield f"{name}.{path}", inner


def _is_free(pointer: str, study: Schema, definitions: Mapping[str, Schema]) -> bool:
    """Return whether the field that a pointer leads to is a mapping with names of the user's choice."""
    *_, owner, _, name = pointer.split("/")
    field = (study if owner == "#" else definitions[owner])["properties"][name]
    return bool(field.get("additionalProperties"))


def _matrix(values: Mapping[str, Schema], free: str) -> Schema:
    labels = {"$ref": "#/$defs/Labels"}

    def axis(value: Schema) -> Schema:
        listed = {"allOf": [{"type": ["string", "number", "boolean"]}, value]}
        return {"anyOf": [{"type": "array", "minItems": 1, "items": listed}, labels]}

    return {
        "description": "Fields and their values, or names of axes with the changes of each label.",
        "type": "object",
        "minProperties": 1,
        "properties": {path: axis(value) for path, value in values.items()},
        "patternProperties": {rf"^({free})\..+": axis({})},
        "additionalProperties": labels,
    }


def _name(part: Schema) -> str:
    return str(part["$ref"]).rpartition("/")[2]


def _reference(pointer: str) -> Schema:
    return {"$ref": pointer}


def _mapping(value: Schema) -> Schema:
    return {"type": "object", "minProperties": 1, "additionalProperties": value}


def _optional(description: str, value: Schema) -> Schema:
    return {"description": description, "anyOf": [value, {"type": "null"}]}
