"""The data part of a study file: source, nuisance, long-tail profile, validation and shot groups."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gitdist.spec.base import MANY, Fraction, List, Options, Positive, Spec, Text

_PATH_SOURCES = ("images", "list", "csv")
_OWN_SOURCES = (*_PATH_SOURCES, "plugin")
_SOURCES_OF = {  # the sources that a field applies to
    "image_size": _OWN_SOURCES,
    "test_share": _OWN_SOURCES,
    "train": ("list",),
    "test": ("list",),
    "table": ("csv",),
    "columns": ("csv",),
    "classes": ("list", "csv"),
    "target": ("plugin",),
    "options": ("plugin",),
}
_REQUIRED = {"list": "train", "csv": "table", "plugin": "target"}
_VALIDATION_SHARE = 0.2


class ProfileSpec(Spec):
    """Class sizes of the long tail (Zhou et al. 2022; Cui et al. 2019; Buda et al. 2018)."""

    kind: Literal["zipf", "power", "exponential", "step", "none"] = "none"
    largest: Positive | None = None  # images of the largest class; None = all
    smallest: Positive = 5  # zipf, power: no class is smaller
    exponent: float = Field(2.0, gt=0, le=20)  # class of rank k has largest / k^exponent; default: zipf 2.0, power 1.8
    factor: float = Field(0.01, gt=0, le=1)  # exponential, step: smallest / largest
    minority: Fraction = 0.5  # step: share of the classes that are small

    @model_validator(mode="before")
    @classmethod
    def _derive_exponent(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("exponent") is None:
            return {**values, "exponent": 1.8 if values.get("kind") == "power" else 2.0}
        return values

    @model_validator(mode="after")
    def _falling(self) -> "ProfileSpec":
        if self.kind in ("zipf", "power") and self.largest is not None and self.smallest > self.largest:
            raise ValueError(
                f"smallest must not be above largest, but {self.smallest} > {self.largest}; lower smallest"
            )
        return self


class GroupsSpec(Spec):
    """Class sizes that separate many-, medium- and few-shot classes: many > ``many`` >= medium >= ``few`` > few."""

    many: int = Field(100, ge=0, le=MANY)
    few: int = Field(20, ge=0, le=MANY)


def _class_name(value: Any) -> Any:
    """Accept a whole number, which YAML makes of an unquoted name such as 2; refuse what has lost its spelling."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise ValueError("a class name must be text; quote it")
    return value


class ColumnsSpec(Spec):
    """The columns of a table, by the names in its first row."""

    image: Text = "image"  # path, relative to data.path
    label: Text = "label"  # an integer counted from 0, or a name
    split: Text | None = None  # train, val or test; None = all rows are training images
    group: Text | None = None  # see data.group


class DataSpec(Spec):
    """A long-tailed data set: source, nuisance, profile."""

    source: Literal[
        "digits",
        "fashion-mnist",
        "kuzushiji-mnist",
        "kuzushiji-49",
        "cifar-10",
        "cifar-100",
        "gtsrb",
        "images",
        "list",
        "csv",
        "npz",
        "plugin",
    ] = "digits"
    path: Text | None = None  # folder of the source's files; None = the source's usual folder
    # list: a file with a line "path label" for each image of the split, below data.path; validation may be a file too
    train: Text | None = None
    test: Text | None = None  # None = split off training
    table: Text | None = None  # csv: a file with a row for each image
    columns: ColumnsSpec = ColumnsSpec()
    classes: Text | None = None  # list, csv: a file with a line for each class, its name, in the order of the labels
    target: Text | None = None  # plugin: package.module:attribute, or an entry point of the group gitdist.data
    options: Options = {}  # its keyword arguments
    # names of classes to leave out
    exclude: Annotated[tuple[Annotated[str, BeforeValidator(_class_name)], ...], List] = ()
    # Images of one group (a physical object, a patient, a video) never lie in two splits. None = the source's own
    # groups (gtsrb: the track; npz, plugin: its array "groups"; csv: columns.group), "none" = each image by itself.
    # images, list, csv: "folder" = the folder between class and image (list, csv: the one that the image lies in), or a
    # regular expression on the path, whose first group (else the match) names the image's group
    group: Text | None = None
    # images, list, csv, plugin: side in pixels; None = the median one, 16 to 64
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    # images, list, csv, plugin without a test split: share of each class that becomes test
    test_share: float = Field(0.2, gt=0, lt=1)
    nuisance: Literal["none", "rotation", "background", "dilation-erosion"] = "none"
    profile: ProfileSpec = ProfileSpec()
    # seed of the splits, of the nuisance and of the order of a zipf profile's classes
    version: int = Field(0, ge=0, le=2**63 - 1)
    # share of each class's official training images, at least one image; list: or the file of the validation split
    validation: Annotated[float, Field(gt=0, lt=1)] | Text = _VALIDATION_SHARE
    validation_per_class: Positive | None = 200  # at most this many images per class; None = no limit
    groups: Literal["auto"] | GroupsSpec = "auto"  # auto = 100 and 20 if no group is empty then, else thirds

    @property
    def validation_share(self) -> float:
        """The share of each class that is split off for validation; the default if validation is a list."""
        return self.validation if isinstance(self.validation, float) else _VALIDATION_SHARE

    @model_validator(mode="after")
    def _of_its_source(self) -> "DataSpec":
        for name, sources in _SOURCES_OF.items():
            if self.source not in sources and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} applies only to the source {' and '.join(sources)}, but the source is {self.source}"
                )
        if isinstance(self.validation, str) and self.source != "list":
            raise ValueError(
                f"validation must be a number between 0 and 1 for the source {self.source}, but it is "
                f"'{self.validation}'"
            )
        required = _REQUIRED.get(self.source)
        if required and getattr(self, required) is None:
            raise ValueError(f"the source {self.source} needs {required}; set data.{required}")
        return self

    @model_validator(mode="after")
    def _known_group_rule(self) -> "DataSpec":
        if self.group is None or self.group == "none":
            return self
        if self.source not in _PATH_SOURCES:
            raise ValueError(f"group must be none or omitted for the source {self.source}, but it is {self.group!r}")
        if self.columns.group is not None:
            raise ValueError(
                f"group must be none or omitted with columns.group ({self.columns.group!r}), but it is {self.group!r}"
            )
        try:
            re.compile(self.group)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"group must be folder, none or a regular expression, but {self.group!r} is not one ({error})"
            ) from None
        return self
