"""The data part of a study file: source, nuisance, long-tail profile, validation and shot groups."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gitdist.spec.base import MANY, Fraction, List, Positive, Spec, Text


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
        "npz",
    ] = "digits"
    path: Text | None = None  # folder of the source's files; None = the source's usual folder
    # names of classes to leave out
    exclude: Annotated[tuple[Annotated[str, BeforeValidator(_class_name)], ...], List] = ()
    # Images of one group (a physical object, a patient, a video) never lie in two splits. None = the source's own
    # groups (gtsrb: the track; npz: its array "groups"), "none" = each image by itself; images: "folder" = the folder
    # between class and image, or a regular expression on the path, whose first group (else the match) names the image's
    # group
    group: Text | None = None
    # images: side in pixels; None = the median one, 16 to 64
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    test_share: float = Field(0.2, gt=0, lt=1)  # images without a test folder: share of each class that becomes test
    nuisance: Literal["none", "rotation", "background", "dilation-erosion"] = "none"
    profile: ProfileSpec = ProfileSpec()
    # seed of the splits, of the nuisance and of the order of a zipf profile's classes
    version: int = Field(0, ge=0, le=2**63 - 1)
    validation: float = Field(0.2, gt=0, lt=1)  # share of each class's official training images, at least one image
    validation_per_class: Positive | None = 200  # at most this many images per class; None = no limit
    groups: Literal["auto"] | GroupsSpec = "auto"  # auto = 100 and 20 if no group is empty then, else thirds

    @model_validator(mode="after")
    def _of_its_source(self) -> "DataSpec":
        for name in ("image_size", "test_share"):
            if self.source != "images" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} applies only to the source images, but the source is {self.source}")
        return self

    @model_validator(mode="after")
    def _known_group_rule(self) -> "DataSpec":
        if self.group is None or self.group == "none":
            return self
        if self.source != "images":
            raise ValueError(f"group must be none or omitted for the source {self.source}, but it is {self.group!r}")
        try:
            re.compile(self.group)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"group must be folder, none or a regular expression, but {self.group!r} is not one ({error})"
            ) from None
        return self
