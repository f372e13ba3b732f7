"""Relative paths in a study file, made absolute: the study can then be resumed from any directory."""

import re
from pathlib import Path
from typing import Any

from gitdist.disk import real_path
from gitdist.errors import SpecError
from gitdist.input_file import expand_home

_FILE_FIELDS = (
    *("data.path", "data.train", "data.validation", "data.test", "data.table", "data.classes"),
    *("generator.path", "store.uri"),
)
_PRETRAINED = re.compile(
    r"(trial|methods\..+|search\.try_first|search\.space\..+\.when)\.pretrained|search\.space\.pretrained\.choice"
)
_STUDY_FIELD = "search.warm_start"  # a name, or a path with a slash
_DATABASE_FIELD = "tracking.uri"
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")
_SQLITE = "sqlite:///"


def absolute_paths(values: Any, base: Path, field: str = "") -> Any:
    """Return values of a study file with every relative path made absolute; ``~`` is the home directory.

    A URI with a scheme stays as it is, except for a relative ``sqlite:///file`` of MLflow. The changes of scales and of
    a matrix's labels are included. Values that a matrix lists become labels, so that studies keep their names.
    """
    if isinstance(values, str):
        return _absolute(values, base, field)
    if isinstance(values, list) and field.startswith("matrix.") and all(isinstance(value, str) for value in values):
        axis = field.removeprefix("matrix.")
        resolved = {value: _absolute(value, base, axis) for value in values}
        return values if values == list(resolved.values()) else {name: {axis: path} for name, path in resolved.items()}
    if isinstance(values, list):
        return [absolute_paths(value, base, field.removeprefix("matrix.")) for value in values]
    if not isinstance(values, dict):
        return values
    if field == "scale" or field.startswith("matrix."):  # the changes of a scale or a label start at the top again
        return {name: absolute_paths(value, base) for name, value in values.items()}
    inner = f"{field}." if field else ""
    return {name: absolute_paths(value, base, f"{inner}{name}") for name, value in values.items()}


def _absolute(text: str, base: Path, field: str) -> str:
    if (field in _FILE_FIELDS or _PRETRAINED.fullmatch(field)) and text and not _SCHEME.match(text):
        return str(_joined(base, text, field))
    if field == _STUDY_FIELD and "/" in text:
        return str(_joined(base, text, field))
    if field == _DATABASE_FIELD and text.startswith(_SQLITE):
        file, mark, options = text.removeprefix(_SQLITE).partition("?")
        if file and file != ":memory:":
            return f"{_SQLITE}{_joined(base, file, field)}{mark}{options}"
    return text


def _joined(base: Path, text: str, field: str) -> Path:
    try:
        path = base / expand_home(text)
    except SpecError as error:
        raise SpecError(f"{field}: {error}") from None
    return real_path(path) if ".." in path.parts else path
