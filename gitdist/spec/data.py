"""The data part of a study file: source, nuisance, long-tail profile, validation and shot groups."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gitdist.spec.base import MANY, Fraction, List, Options, Positive, Spec, Text

PublishedName = Literal["digits", "fashion-mnist", "kuzushiji-mnist", "kuzushiji-49", "cifar-10", "cifar-100", "gtsrb"]
OwnName = Literal["images", "list", "csv", "npz", "plugin"]
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
    """How class sizes fall: zipf and power by a power of the class's rank, exponential evenly, step from all images
    to few; power ranks the classes by their official size, as GTSRB-LT does. none: the source's own sizes."""
    largest: Positive | None = None
    """Images of the largest class; null: all it has."""
    smallest: Positive = 5
    """zipf, power: no class has fewer images."""
    exponent: float = Field(2.0, gt=0, le=20)
    """zipf, power: the class of rank k has largest / k^exponent images; default: 2.0 for zipf, 1.8 for power."""
    factor: float = Field(0.01, gt=0, le=1)
    """exponential, step: size of the smallest class divided by that of the largest."""
    minority: Fraction = 0.5
    """step: share of the classes that are small."""

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
    """Classes with more training images are many-shot."""
    few: int = Field(20, ge=0, le=MANY)
    """Classes with fewer training images are few-shot."""


def _class_name(value: Any) -> Any:
    """Accept a whole number, which YAML makes of an unquoted name such as 2; refuse what has lost its spelling."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise ValueError("a class name must be text; quote it")
    return value


class ColumnsSpec(Spec):
    """The columns of a table, by the names in its first row."""

    image: Text = "image"
    """Column with the image's path, relative to data.path."""
    label: Text = "label"
    """Column with the class: an integer counted from 0, or a name."""
    split: Text | None = None
    """Column with train, val or test; null: all rows are training images."""
    group: Text | None = None
    """Column with the image's group, see data.group."""


class DataSpec(Spec):
    """A long-tailed data set: source, nuisance, profile."""

    source: Literal[PublishedName, OwnName] = "digits"
    """Where the images come from: a public data set by its name; images: a folder with a folder per class; list:
    text files of paths and labels; csv: a table of images; npz: arrays; plugin: a function of another package."""
    path: Text | None = None
    """Folder of the source's files, relative to the study file; null: $GITDIST_DATA/NAME or ~/.cache/gitdist, and a
    public data set that is in neither is downloaded."""
    train: Text | None = None
    """list: file with a line "path label" for each training image; paths are relative to data.path."""
    test: Text | None = None
    """list: file of the test images; null: split off training."""
    table: Text | None = None
    """csv: file with a row for each image."""
    columns: ColumnsSpec = ColumnsSpec()
    """csv: names of the table's columns."""
    classes: Text | None = None
    """list, csv: file with the name of each class on a line, in the order of the labels."""
    target: Text | None = None
    """plugin: package.module:attribute, or an entry point of the group gitdist.data."""
    options: Options = {}
    """plugin: keyword arguments of its function."""
    exclude: Annotated[
        tuple[Annotated[str, BeforeValidator(_class_name, json_schema_input_type=str | int)], ...], List
    ] = ()
    """Names of classes to leave out."""
    group: Text | None = None
    """What keeps images together: images of one group (an object, a patient, a video) never lie in two splits. null:
    the source's own groups (gtsrb: the track; npz, plugin: its array "groups"; csv: columns.group). none: each image
    by itself. images, list, csv: folder (images: the folder between class and image; list, csv: the one that the
    image lies in), or a regular expression on the path, whose first group (else the match) names the image's group."""
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """images, list, csv, plugin: side of the square images in pixels; null: the median side, 16 to 64."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """images, list, csv, plugin: share of each class that becomes test if there is no test split."""
    nuisance: Literal["none", "rotation", "background", "dilation-erosion"] = "none"
    """Transformation that is applied once to each image, and the true one of eKLD; none: eKLD is measured under the
    generator."""
    profile: ProfileSpec = ProfileSpec()
    """Class sizes of the long tail."""
    version: int = Field(0, ge=0, le=2**63 - 1)
    """Seed of the splits, of the nuisance and of the order of a zipf profile's classes; test images stay the same."""
    validation: Annotated[float, Field(gt=0, lt=1)] | Text = _VALIDATION_SHARE
    """Share of each class's training images that is held out for validation, at least one image; list: or the file of
    the validation split."""
    validation_per_class: Positive | None = 200
    """At most this many validation images per class; null: no limit."""
    groups: Literal["auto"] | GroupsSpec = "auto"
    """Class sizes that separate many-, medium- and few-shot classes; auto: 100 and 20 if no group is empty then, else
    thirds of the classes."""

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
