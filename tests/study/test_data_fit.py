"""What is refused because the data set's images or class sizes do not have it."""

from dataclasses import replace

import pytest

from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.study.data_fit import check_fit
from tests.trial.toys import small_digits


def study(**search) -> StudySpec:
    return StudySpec.model_validate({"name": "study", "search": search})


def test_few_shot_accuracy_needs_few_shot_classes(tmp_path):
    equal = small_digits(tmp_path / "equal", kind="step", largest=20, factor=1.0)
    tailed = small_digits(tmp_path / "tailed", kind="exponential", largest=60, factor=0.1)
    with pytest.raises(SpecError, match=r"val/few_accuracy needs few-shot classes, .* set data.groups"):
        check_fit(study(objective=["val/ekld", "val/few_accuracy"]), equal)
    check_fit(study(objective="val/few_accuracy"), tailed)
    check_fit(study(), equal)
    split = tailed.validation
    kept = ~tailed.groups.few[split.labels]
    tailed.__dict__["validation"] = replace(split, images=split.images[kept], labels=split.labels[kept])
    with pytest.raises(SpecError, match=r"the data set has none with a validation image"):
        check_fit(study(objective="val/few_accuracy"), tailed)


def test_the_soft_threshold_must_lie_above_the_smallest_class(tmp_path):
    tailed = small_digits(tmp_path, kind="exponential", largest=60, factor=0.1)
    space = {"threshold_kind": {"choice": ["hard", "soft"]}, "threshold": {"int": [6, 60]}}
    with pytest.raises(SpecError, match="soft"):
        check_fit(study(space=space), tailed)
    check_fit(study(space={**space, "threshold": {"int": [7, 60]}}), tailed)
