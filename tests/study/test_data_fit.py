"""What is refused because the data set's images or class sizes do not have it."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from gitdist.errors import SpecError
from gitdist.networks import build_classifier
from gitdist.networks.pretrained import WeightsFile
from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.data_fit import check_fit, check_networks
from gitdist.study.resources.weights import distinct_trials
from tests.trial.toys import small_digits

SMALL = "tests.networks.sample_factories:small"


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


def test_networks_and_pretrained_weights_of_all_trials_are_checked_once_each(tmp_path):
    image_shape = (1, 8, 8)
    file = str(tmp_path / "small.safetensors")
    save_file(build_classifier(SMALL, image_shape, 3).state_dict(), file)
    study = StudySpec.model_validate(
        {
            "name": "study",
            "trial": {"network": "resnet20"},
            "methods": {"plain": {}, "tuned": {"network": SMALL, "pretrained": file}, "wide": {"lr": 0.2}},
            "search": {
                "space": {
                    "method": {"choice": ["plain", "tuned"]},
                    "threshold": {"int": [1, 60]},
                    "normalize": {"choice": ["data", "imagenet"], "when": {"method": "tuned"}},
                }
            },
        }
    )
    trials = distinct_trials(study)
    tailed = small_digits(tmp_path / "digits", kind="exponential", largest=60, factor=0.1)

    assert [(trial.network, trial.pretrained, trial.normalize) for trial in trials] == [
        ("resnet20", False, None),
        (SMALL, file, "data"),
        (SMALL, file, "imagenet"),
    ]
    weights = check_networks(study, tailed, Store(tmp_path / "store"))
    assert list(weights) == [file]
    assert weights[file].digest == WeightsFile.open(Path(file)).digest and weights[file].path != Path(file)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": "timm:test_vit"}, "trial.network 'timm:test_vit' must .* 2x1x8x8"),
        ({"network": "resnet20", "pretrained": "/missing.pth"}, "trial.pretrained: cannot read /missing.pth"),
        ({"normalize": {"mean": [0.1, 0.2, 0.3], "std": [1]}}, "trial.normalize.mean"),
    ],
)
def test_a_network_of_any_method_that_does_not_fit_is_refused(tmp_path, fields, words):
    tailed = small_digits(tmp_path / "digits", kind="exponential", largest=60, factor=0.1)
    study = StudySpec.model_validate({"name": "study", "methods": {"first": {}, "second": fields}})
    with pytest.raises(SpecError, match=words):
        check_networks(study, tailed, Store(tmp_path / "store"))
