"""Markdown that pages take from elsewhere, so that it cannot drift: fields of a study file, commands, whole files.

A page has a comment where it is filled in: fields, commands, or file: PATH in the repository.
"""

import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from gitdist.cli.app import app
from gitdist.spec import StudySpec
from gitdist.spec.dimension import Dimension

GUIDE = Path(__file__).parent
REPOSITORY = GUIDE.parents[1]
PAGES = {
    "CHANGELOG.md": "about/changes.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "README.md": "index.md",
    "cluster/README.md": "how_to/cluster.md",
    "studies/benchmarks/README.md": "about/benchmarks.md",
}
"""The page of the guide that has each Markdown file of the repository."""
_READ_OTHERWISE = ("objective", "constraints", "space")  # read from forms that the schema does not have
_HUGE = 1_000_000  # a bound that says nothing to a reader


def fill_in(page: str, text: str) -> str:
    """Return the text of a page with its comment lines filled in, and with links to pages in place of files."""
    folder = (GUIDE / page).parent
    text = _relink(text, folder, folder)
    text = re.sub("<!-- fields -->", lambda _: "\n".join(fields()), text)
    text = re.sub("<!-- commands -->", lambda _: "\n".join(commands()), text)
    return re.sub("<!-- file: (.+) -->", lambda found: _file(found[1], folder), text)


def _file(name: str, folder: Path) -> str:
    file = REPOSITORY / name
    return _relink(file.read_text(), file.parent, folder)


def _relink(text: str, origin: Path, folder: Path) -> str:
    """Return Markdown whose links are relative to ``folder`` instead of ``origin``; those to folders become text."""

    def link(found: re.Match[str]) -> str:
        label, target, anchor = found.groups()
        if "://" in target or not target:
            return found[0]
        path = Path(os.path.normpath(origin / target))
        if path.is_dir():
            return label
        page = PAGES.get(str(path.relative_to(REPOSITORY)))
        return f"[{label}]({os.path.relpath(GUIDE / page if page else path, folder)}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*|)\)", link, text)


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
    inner = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        full = f"{path}.{key}" if path else key
        property_ = schema["properties"][key]
        description = " ".join((field.description or "").split())
        models = [] if key in _READ_OTHERWISE else _models(field.annotation)
        inner += [(full, each, len(models) > 1) for each in models]
        yield f"`{full}`"
        if models and not {"anyOf", "enum"} & property_.keys():
            yield f": {description} Its fields are below."
        else:
            default = "Required" if key in schema.get("required", ()) else f"Default: {_default(property_, field)}"
            values = "" if key in _READ_OTHERWISE else f" Values: {_values(property_, definitions)}."
            yield f": {description}{values} {default}."
        yield ""
    for full, each, is_kind in inner:
        kind = f" of the kind `{each.model_fields['kind'].default}`" if is_kind else ""
        yield from _part(full, each, title=f"`{full}`{kind}")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in a field's annotation."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _values(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what a field may be, in words."""
    match schema:
        case {"enum": names}:
            return "one of " + ", ".join(_yaml(name) for name in names)
        case {"const": value}:
            return _yaml(value)
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
    limits = [f"{word} {schema[key]:,}" for key, word in words.items() if abs(schema.get(key, _HUGE)) < _HUGE]
    return f" ({', '.join(limits)})" if limits else ""


def _default(schema: Mapping[str, Any], field: FieldInfo) -> str:
    if isinstance(field.default, tuple) and field.default:
        return ", ".join(f"`{each.metric}`" for each in field.default)
    return _yaml(schema["default"])


def _yaml(value: Any) -> str:
    """Return a value as a study file has it on one line."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


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
    yield re.sub("[{}]", "", " ".join([name, *command.collect_usage_pieces(context)]))
    yield "```"
    yield ""
    if examples := re.findall(r"\$ (.+)", command.epilog or ""):
        yield "\n".join(["```bash", *examples, "```"])
    yield ""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        yield f"`{re.sub(' *<.*>', '', record[0])}`"
        yield f": {_markdown(record[1])}"
        yield ""


def _markdown(text: str) -> str:
    """Return a help text without what only a terminal shows."""
    return inspect.cleandoc(text).replace("\b\n", "").replace("<", "&lt;").replace("$", "\\$")
