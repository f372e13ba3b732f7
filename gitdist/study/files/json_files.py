"""What the JSON files of a study must contain; a file with other content was damaged or edited.

All of them but the usage of drivers follow from other files, so the next driver writes them again.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gitdist.disk import read_object
from gitdist.errors import IncompleteFileError
from gitdist.spec.base import NameIn
from gitdist.spec.objective import VALIDATION_METRICS, Direction


class JsonFile(BaseModel):
    """The fields of a JSON file that are read; it may have others."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="after")
    def _have_one_length(self) -> Self:
        lengths = {len(values) for name, values in self if name.endswith("per_class") and values is not None}
        if len(lengths) > 1:
            raise ValueError("must have a value for each class")
        return self


class _Classes(JsonFile):
    names_per_class: list[str] = Field(alias="names", min_length=1)
    sizes_per_class: list[Annotated[int, Field(ge=0, lt=2**53)]] = Field(alias="sizes")
    distinct_per_class: list[Annotated[int, Field(ge=0, lt=2**53)]] | None = Field(None, alias="distinct")


class Description(JsonFile):
    """``trial.json``: the spec of a trial, the prefix or result that it reuses, and the classes of the data set."""

    title: str = ""
    spec: dict[str, Any] = {}
    classes: _Classes | None = None
    prefix: str | None = None
    prefix_epochs: int | None = None
    repeat_of: int | None = None
    replicate_of: int | None = None


class ResultOnTest(JsonFile):
    """``test.json``: the result of a trial on test."""

    metrics: dict[str, float]
    accuracy_per_class: list[float | None] | None = None
    ekld_per_class: list[float | None] | None = None
    right_ekld_per_class: list[float | None] | None = None
    consistency_per_class: list[float | None] | None = None
    evaluated_at: float | None = None
    evaluating_s: float = 0.0


class Usage(JsonFile):
    """``drivers/*.json``: times and counts of a driver."""

    wall_s: float
    generated_images: int = 0
    generating_s: float = 0.0
    generator_training_s: float = 0.0


class _ChosenTrial(JsonFile):
    number: int | None
    params: dict[str, Any]
    val: dict[str, float]
    test: dict[str, float]
    replicates: list[int] = []
    mean_objectives: list[float] = []


class Summary(JsonFile):
    """``summary.json``: times, counts, the best trials and the baseline of a finished study."""

    study: str = ""
    objectives: list[Annotated[str, NameIn(VALIDATION_METRICS)]] = []
    directions: list[Direction] | None = None
    constraints: list[str] = []
    ekld_under: str = "nuisance"
    trials: dict[str, int]
    wall_s: float = 0.0
    generated_images: int = 0
    generating_s: float = 0.0
    generator_training_s: float = 0.0
    training_s: float = 0.0
    waiting_s: float = 0.0
    evaluating_s: float = 0.0
    trained_epochs: int = 0
    shared_epochs: int = 0
    saved_s: float = 0.0
    best: _ChosenTrial | None
    baseline: _ChosenTrial | None = None
    pareto: list[_ChosenTrial] | None = None
    ended_at: float | None = None

    @field_validator("directions")
    @classmethod
    def _one_each(cls, directions: list[Direction] | None, info: ValidationInfo) -> list[Direction] | None:
        if directions is not None and len(directions) != len(info.data.get("objectives", directions)):
            raise ValueError("must have a direction for each objective")
        return directions

    @model_validator(mode="after")
    def _a_mean_each(self) -> Self:
        for chosen in (self.best, *(self.pareto or ())):
            if chosen is not None and len(chosen.mean_objectives) not in (0, len(self.objectives)):
                raise ValueError("must have a mean of each objective")
        return self


def check_json(path: Path, schema: type[JsonFile]) -> dict[str, Any] | None:
    """Return the object in a file; None if it is missing or no whole JSON object.

    Raises:
        IncompleteFileError: a field is not what ``schema`` says.
    """
    values, is_derived = read_object(path), schema is not Usage
    if values is None:
        return None
    try:
        schema.model_validate(values)
    except ValidationError as error:
        field = ".".join(map(str, error.errors(include_url=False)[0]["loc"])) or "accuracy_per_class"
        raise IncompleteFileError(path, field, is_derived=is_derived) from None
    return values


def read_json(path: Path, schema: type[JsonFile]) -> dict[str, Any] | None:
    """Return the object in a file; None if it is missing or damaged."""
    with suppress(IncompleteFileError):
        return check_json(path, schema)
    return None


def read_links(description: Mapping[str, Any]) -> dict[str, int]:
    """Return ``repeat_of`` or ``replicate_of`` from the content of a trial.json, or {}."""
    return {name: description[name] for name in ("repeat_of", "replicate_of") if description.get(name) is not None}
