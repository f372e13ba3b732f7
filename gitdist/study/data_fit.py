"""Checks that a study's spec fits its data set: class sizes, image size, few-shot classes, points of the search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gitdist.data.dataset import Dataset
from gitdist.errors import SpecError
from gitdist.generator.resizing import generated_shape
from gitdist.networks.check import check_network
from gitdist.spec import ResizableSpec, StudySpec, TrialSpec
from gitdist.spec.base import STORED
from gitdist.store import Store
from gitdist.study.compatibility import StudyWeights
from gitdist.study.ledger.space import num_omitted_points, point_plan
from gitdist.study.resources.weights import distinct_trials, obtain_weights
from gitdist.trial.augmentation import input_normalisation
from gitdist.trial.checkpoint import weights_source
from gitdist.trial.mixing import replacement_probabilities


def check_fit(spec: StudySpec, dataset: Dataset) -> None:
    """Refuse a study that needs images or class sizes that the data set does not have."""
    if isinstance(spec.generator, ResizableSpec):
        generated_shape(spec.generator.image_size, dataset.image_shape)  # raises if the images are not larger
    _check_shot_groups(spec, dataset)
    for method in spec.methods.values() or [{}]:
        for kind in _values(spec, method, "threshold_kind"):
            for threshold in _values(spec, method, "threshold"):
                fields = {"threshold": threshold, "threshold_kind": kind}
                trial = TrialSpec.model_validate(fields, context=STORED)
                replacement_probabilities(trial, dataset.class_sizes)  # raises if a soft threshold is too low


def _check_shot_groups(spec: StudySpec, dataset: Dataset) -> None:
    """Refuse an objective or constraint on a shot group without classes to measure it on."""
    validated = np.isin(np.arange(dataset.num_classes), dataset.validation.labels)
    constraints = [("search.constraints", each.metric) for each in spec.search.constraints]
    for field, metric in [("search.objective", name) for name in spec.search.objectives] + constraints:
        for group, mask in dataset.groups.as_dict().items():
            if metric.startswith(f"val/{group}_") and not (mask & validated).any():
                lacking = "none with a validation image" if mask.any() else "none"
                raise SpecError(
                    f"{field} {metric} needs {group}-shot classes, but the data set has {lacking} "
                    f"({dataset.groups.rule}); set data.groups, or choose val/balanced_accuracy"
                )


def check_networks(spec: StudySpec, dataset: Dataset, store: Store) -> StudyWeights:
    """Refuse networks, pretrained weights and normalisations that do not fit the images; return the weights.

    Raises:
        SpecError: as ``obtain_weights``, ``check_network`` and ``input_normalisation``.
    """
    trials = distinct_trials(spec)
    weights = obtain_weights(trials, store)
    checked = []
    for trial in trials:
        input_normalisation(trial, dataset)
        source = weights_source(trial)
        file = None if source is None else weights[source].path if trial.pretrained is True else Path(source)
        needs = (trial.network, trial.network_options, file, _smallest_batch(trial, dataset), trial.adapt == "lora")
        if needs not in checked:
            network, options, pretrained, batch_size, lora = needs
            shape, classes = dataset.image_shape, dataset.num_classes
            check_network(network, shape, classes, options, pretrained, batch_size, lora=lora)
            checked.append(needs)
    return weights


def _smallest_batch(trial: TrialSpec, dataset: Dataset) -> int:
    """Return 1 if a batch has one image, which batch norm of single pixels cannot take, else 2."""
    return 1 if len(dataset.train.labels) % trial.batch_size == 1 or trial.batch_size == 1 else 2


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
