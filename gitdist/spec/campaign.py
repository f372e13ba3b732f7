"""A campaign: a study file whose ``matrix`` makes several studies of it, one study per combination of changes.

matrix:
  data.nuisance: [rotation, background]            # a field and its values
  draws:                                           # or a name, and what each label changes
    learned: {}
    oracle: {generator: {kind: oracle}}

A report treats studies as replicates if they differ in seeds (trial, generator, stream) or the data's version only. An
axis named ``replicate`` changes several of them together: {r0: {}, r1: {trial.seed: 1, generator.seed: 1}}.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from gitdist.errors import SpecError
from gitdist.spec.strict_yaml import MAX_DEPTH
from gitdist.spec.study import StudySpec

MAX_STUDIES = 1000
Label = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Member:
    """One study of a campaign; ``labels`` has its value on each axis of the matrix."""

    labels: Mapping[str, Label]
    spec: StudySpec


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Several studies that run and are reported together; ``values`` is their file at its scale, with overrides."""

    name: str
    title: str | None
    members: tuple[Member, ...]
    values: Mapping[str, Any]


def expand(matrix: Any, values: Mapping[str, Any], origin: str) -> list[tuple[dict[str, Label], dict[str, Any]]]:
    """Return labels and values of every study that a matrix makes.

    Raises:
        SpecError: the matrix is not of that form, a field cannot be set, or two studies would have the same name.
    """
    if not isinstance(matrix, dict) or not matrix:
        raise SpecError(f"{origin}: matrix must map fields to lists of values, but it is {matrix!r}; remove or fill it")
    for axis in matrix:
        if not isinstance(axis, str):
            raise SpecError(f"{origin}: an axis of the matrix must be text, but one is {axis!r}; quote it")
    axes = {axis: _alternatives(axis, entries, origin) for axis, entries in matrix.items()}
    number = math.prod(map(len, axes.values()))
    if number > MAX_STUDIES:
        raise SpecError(
            f"{origin}: a matrix must make at most {MAX_STUDIES:,} studies, but this one makes {number:,}; shorten its "
            "lists, or make several files of it"
        )
    short = short_names(axes)
    studies = []
    for combination in itertools.product(*axes.values()):
        labels = dict(zip(axes, (label for label, _ in combination), strict=True))
        changed = deepcopy(dict(values))
        for axis, (_, changes) in zip(axes, combination, strict=True):
            for path, value in changes.items():
                assign(changed, str(path), value, f"{origin}: matrix.{axis}")
        # A label that is a number or a boolean is preceded by its axis.
        parts = [label if isinstance(label, str) else f"{short[axis]}{label}" for axis, label in labels.items()]
        plain = [re.sub(r"[^A-Za-z0-9_-]+", "-", part) for part in parts]
        changed["name"] = ".".join([str(values.get("name")), *plain])
        studies.append((labels, changed))
    names = [changed["name"] for _, changed in studies]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"{origin}: the studies of a matrix must have different names, but two are '{twice}'")
    return studies


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """Return each axis's short name: its last component, or all of it if another axis ends alike."""
    last = {axis: axis.rpartition(".")[2] for axis in axes}
    counts = Counter(last.values())
    return {axis: name if counts[name] == 1 else axis for axis, name in last.items()}


def assign(values: dict[str, Any], path: str, value: Any, origin: str) -> None:
    """Set the field at ``path.to.field``; missing mappings are made, and others are copied before they are changed."""
    *parents, last = path.split(".")
    if len(parents) > MAX_DEPTH:
        raise SpecError(f"{origin}: a field path must have at most {MAX_DEPTH} parts, but one has {len(parents) + 1:,}")
    for depth, name in enumerate(parents, 1):
        current = values.get(name)
        if current is not None and not isinstance(current, dict):
            parent = ".".join(parents[:depth])
            raise SpecError(
                f"{origin}: {parent} must be a mapping because {path} is set, but it is {current!r}; make it one"
            )
        values[name] = dict(current or {})
        values = values[name]
    values[last] = deepcopy(value)


def change(values: dict[str, Any], path: str, value: Any, origin: str) -> None:
    """Set a field of a study file as ``assign`` does; a matrix that varies it is reduced to the value.

    For an axis of labels that is not a field, the value is one of its labels. Labels that each set only the field which
    the axis is named after count as a list of values.
    """
    matrix: Any = values.get("matrix")
    axis = matrix.get(path) if isinstance(matrix, dict) else None
    if not isinstance(axis, dict):
        assign(values, path, value, origin)
        if isinstance(axis, list):
            values["matrix"] = {**matrix, path: [deepcopy(value)]}
    elif isinstance(value, Label) and all(isinstance(each, dict) and list(each) == [path] for each in axis.values()):
        label = next((label for label, changes in axis.items() if changes == {path: value}), value)
        values["matrix"] = {**matrix, path: {label: {path: deepcopy(value)}}}
    elif isinstance(value, Label) and value in axis:
        values["matrix"] = {**matrix, path: {value: axis[value]}}
    else:
        raise SpecError(f"{origin}: matrix.{path} has no '{value}'; choose one of {', '.join(map(str, axis))}")


def _alternatives(axis: str, entries: Any, origin: str) -> list[tuple[Label, Mapping[str, Any]]]:
    """Return label and changes of each study along an axis."""
    alternatives: list[tuple[Label, Mapping[str, Any]]] = []
    if isinstance(entries, list):
        alternatives = [(value, {axis: value}) for value in entries]
    elif isinstance(entries, dict) and all(isinstance(changes, dict) for changes in entries.values()):
        alternatives = list(entries.items())
    if not alternatives:
        raise SpecError(
            f"{origin}: matrix.{axis} must be a list of values, or map labels to changes by field path, "
            f"but it is {entries!r}"
        )
    for label, _ in alternatives:
        if not isinstance(label, Label) or (isinstance(label, float) and not math.isfinite(label)):
            raise SpecError(
                f"{origin}: matrix.{axis} must list plain values, but it has {label!r}; map labels to changes"
            )
    return alternatives
