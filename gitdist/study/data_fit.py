"""Checks that a study's spec fits its data set: class sizes, image size, few-shot classes, points of the search."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gitdist.data.dataset import Dataset
from gitdist.errors import SpecError
from gitdist.generator.resizing import generated_shape
from gitdist.networks import check_network
from gitdist.spec import ResizableSpec, StudySpec, TrialSpec
from gitdist.spec.base import STORED
from gitdist.study.ledger.space import num_omitted_points, point_plan
from gitdist.trial.mixing import replacement_probabilities


def check_fit(spec: StudySpec, dataset: Dataset) -> None:
    """Refuse a study that needs images or class sizes that the data set does not have."""
    if isinstance(spec.generator, ResizableSpec):
        generated_shape(spec.generator.image_size, dataset.image_shape)  # raises if the images are not larger
    if "val/few_accuracy" in spec.search.objectives:
        validated = np.isin(np.arange(dataset.num_classes), dataset.validation.labels)
        if not (dataset.groups.few & validated).any():
            lacking = "none with a validation image" if dataset.groups.few.any() else "none"
            raise SpecError(
                f"search.objective val/few_accuracy needs few-shot classes, but the data set has {lacking} "
                f"({dataset.groups.rule}); set data.groups, or choose val/balanced_accuracy"
            )
    for method in spec.methods.values() or [{}]:
        for network in _values(spec, method, "network"):
            check_network(network, dataset.image_shape)
        for kind in _values(spec, method, "threshold_kind"):
            for threshold in _values(spec, method, "threshold"):
                fields = {"threshold": threshold, "threshold_kind": kind}
                trial = TrialSpec.model_validate(fields, context=STORED)
                replacement_probabilities(trial, dataset.class_sizes)  # raises if a soft threshold is too low


def describe_study(spec: StudySpec, dataset: Dataset) -> list[str]:
    """Return lines about the data of a study, and about points that its search omits or lacks."""
    sizes = dataset.class_sizes
    lines = [
        f"study '{spec.name}': {spec.data.source}, nuisance {spec.data.nuisance}, {dataset.num_classes} classes of "
        f"{sizes.max()} to {sizes.min()} images, {sizes.sum()} in total"
    ]
    num_omitted, plan = num_omitted_points(spec.search), point_plan(spec.search)
    if num_omitted:
        lines.append(f"search.total omits {num_omitted} points of the grid")
    elif plan is not None and len(plan) < spec.search.total:
        space = "the grid" if spec.search.algorithm == "grid" else "the search space"
        points = "1 point" if len(plan) == 1 else f"{len(plan)} points"
        lines.append(f"search.total is {spec.search.total}, but {space} has {points}: each is tried once")
    return lines


def _values(spec: StudySpec, method: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Return the values of a trial field that the trials of a method may have: all choices, or both bounds."""
    searched = spec.search.space.get(name)
    return searched.extremes if searched else (method.get(name, getattr(spec.trial, name)),)
