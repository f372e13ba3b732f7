"""The data part of a study file: source, nuisance, long-tail profile, validation and shot groups."""

from typing import Literal

from pydantic import Field

from gitdist.spec.base import Fraction, Positive, Spec


class ProfileSpec(Spec):
    """Class sizes of the long tail (Zhou et al. 2022; Cui et al. 2019; Buda et al. 2018)."""

    kind: Literal["zipf", "exponential", "step", "none"] = "none"
    largest: Positive | None = None  # images of the largest class; None = all that are there
    smallest: Positive = 5  # zipf: no class is smaller
    exponent: float = Field(2.0, gt=0)  # zipf: class of rank k has largest / k^exponent images
    factor: float = Field(0.01, gt=0, le=1)  # exponential, step: smallest / largest
    minority: Fraction = 0.5  # step: share of the classes that are small


class GroupsSpec(Spec):
    """Class sizes that separate many-, medium- and few-shot classes: many > ``many`` >= medium >= ``few`` > few."""

    many: int = Field(100, ge=0)
    few: int = Field(20, ge=0)


class DataSpec(Spec):
    """A long-tailed data set: source, nuisance, profile."""

    source: Literal["digits", "fashion-mnist", "npz"] = "digits"
    path: str | None = None  # folder of the source's files; None = where the source usually is
    nuisance: Literal["none", "rotation", "background", "dilation-erosion"] = "none"
    profile: ProfileSpec = ProfileSpec()
    version: int = Field(0, ge=0)  # shuffles the ranks of a zipf profile and draws the nuisance anew
    validation: float = Field(0.2, gt=0, lt=1)  # at most this share of a class's official training images
    validation_per_class: Positive | None = 200  # at most this many images a class; None = no limit
    groups: Literal["auto"] | GroupsSpec = "auto"  # auto = 100 and 20 where no group is empty then, else thirds
