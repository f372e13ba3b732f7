"""Markdown made from the code, so that it cannot drift: the fields of a study file, the commands and their options.

A page has a comment line, such as ``% generated: fields``, where the Markdown is filled in.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from typer.main import get_command

from gitdist.cli.app import app
from gitdist.spec import StudySpec
from gitdist.spec.dimension import Dimension


def fill_in(source: list[str]) -> None:
    """Replace the comment lines of a page's text, the only item of ``source``."""
    for name, make in GENERATED.items():
        line = f"% generated: {name}\n"
        if line in source[0]:
            source[0] = source[0].replace(line, "\n".join(make()) + "\n")


def fields() -> Iterator[str]:
    """Yield a section per part of a study file, with a definition per field."""
    yield from _part("", StudySpec)
    yield from _part("search.space.FIELD", Dimension)


def _part(path: str, model: type[BaseModel], *, title: str | None = None) -> Iterator[str]:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    yield f"## {title or (f'`{path}`' if path else 'The study')}"
    yield ""
    yield inspect.cleandoc(model.__doc__ or "").replace("``", "`")
    yield ""
    parts = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        full = f"{path}.{key}" if path else key
        models = [each for each in _models(field.annotation) if each.__module__.startswith("gitdist.spec")]
        if models and not key.startswith(("objective", "constraints", "space")):
            parts.append((full, models))
        property_ = schema["properties"][key]
        default = "" if key in schema.get("required", ()) else f" Default: {_default(property_)}."
        yield f"`{full}`"
        yield f": {_values(property_, definitions)}.{default}"
        if description := property_.get("description") or field.description:
            yield ""
            yield f"  {' '.join(description.split())}"
        yield ""
    for full, models in parts:
        for each in models:
            kind = getattr(each.model_fields.get("kind"), "default", None) if len(models) > 1 else None
            yield from _part(full, each, title=f"`{full}`" + (f" of the kind `{kind}`" if kind else ""))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in a field's annotation."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what a field may be, in words."""
    match schema:
        case {"enum": names}:
            return "one of " + ", ".join(f"`{_yaml(name)}`" for name in names)
        case {"const": value}:
            return f"`{_yaml(value)}`"
        case {"anyOf": parts} | {"oneOf": parts}:
            return " or ".join(dict.fromkeys(_values(part, definitions) for part in parts))
        case {"allOf": [part]}:
            return _values(part, definitions)
        case {"$ref": name}:
            target = definitions[name.rpartition("/")[2]]
            return "the fields below" if "properties" in target else _values(target, definitions)
        case {"type": "array"}:
            return "a list"
        case {"type": "object"}:
            return "a mapping"
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": "integer" | "number" as kind}:
            return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
        case {"type": "string"}:
            return "text"
        case {"type": "null"}:
            return "`null`"
    return "any value"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[key]:,}" for key, word in words.items() if abs(schema.get(key, 1e18)) < 1e18]
    return ", " + ", ".join(limits) if limits else ""


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return "see below" if isinstance(default, dict) and default else f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    """Return a value as a study file has it on one line."""
    return value if isinstance(value, str) else json.dumps(value)


def commands() -> Iterator[str]:
    """Yield a section per command, with its arguments and options."""
    yield from _commands("gitdist", get_command(app))


def _commands(name: str, command: Any) -> Iterator[str]:
    if hasattr(command, "commands"):
        for sub, each in command.commands.items():
            yield from _commands(f"{name} {sub}", each)
        return
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"## `{name}`"
    yield ""
    yield _markdown(command.help or "")
    yield ""
    yield "```text"
    yield " ".join([name, *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        yield f"`{' '.join(record[0].split())}`"
        yield f": {_markdown(record[1]) or 'Required.'}"
        yield ""


def _markdown(text: str) -> str:
    """Return a help text without what only a terminal shows."""
    return inspect.cleandoc(text).replace("\b\n", "").replace("<", "&lt;").replace("$", "\\$")


GENERATED: Mapping[str, Callable[[], Iterator[str]]] = {"fields": fields, "commands": commands}
