from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from gitdist import bounds
from gitdist.errors import DiskError, SpecError, StoreError, TrialFailedError
from gitdist.generator.oracle import RandAugmentGenerator
from gitdist.networks import build_classifier
from gitdist.spec.objective import VALIDATION_METRICS
from gitdist.store import Store
from gitdist.stream.blocks import BlockMaker
from gitdist.trial.ekld import EkldRequest, EkldSet, ekld_set
from gitdist.trial.evaluation import evaluate
from gitdist.trial.metrics import PAIR_METRICS
from gitdist.trial.training import train
from tests.disks import small_disk
from tests.trial.test_metrics import consistency_by_counting, expected_kl_by_the_formula
from tests.trial.toys import compute, setting_of, short_spec, small_digits

REQUEST = EkldRequest(split="validation", images_per_class=4, transformations=3, seed=0)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "ekld")


@pytest.fixture
def model():
    return build_classifier("resnet20", (1, 8, 8), 10)


def logits_by_hand(model, dataset, images):
    pixels = (torch.tensor(images).double() / 255 - dataset.mean[0]) / dataset.std[0]
    with torch.no_grad():
        return model.eval()(pixels.float()).double()


def test_pairs_are_one_image_before_and_after_the_nuisance(digits, store):
    pairs = ekld_set(digits, REQUEST, store)

    assert pairs.images.shape == (40, 1, 8, 8) and pairs.transformed.shape == (40, 3, 1, 8, 8)
    assert np.bincount(pairs.labels).tolist() == [4] * 10
    before = np.broadcast_to(pairs.images[:, None], pairs.transformed.shape)
    assert (pairs.transformed[before > 0] == before[before > 0]).all()
    assert len(np.unique(pairs.transformed[before == 0])) > 30
    assert not np.array_equal(pairs.transformed[:, 0], pairs.transformed[:, 1])


def test_pairs_are_of_untransformed_images_of_the_split_each_at_most_once(digits, store):
    pairs = ekld_set(digits, EkldRequest(split="validation", images_per_class=99, transformations=1, seed=0), store)

    clean = digits.validation.clean
    assert len(pairs.images) == len(clean)
    assert sorted(image.tobytes() for image in pairs.images) == sorted(image.tobytes() for image in clean)


def test_a_set_is_built_once_and_another_seed_gives_another(digits, store):
    first = ekld_set(digits, REQUEST, store)
    second = ekld_set(digits, REQUEST, Store(store.root))
    other = ekld_set(digits, EkldRequest(split="validation", images_per_class=4, transformations=3, seed=1), store)

    assert np.array_equal(first.transformed, second.transformed)
    assert len(list((store.root / "ekld").iterdir())) == 2
    assert not np.array_equal(first.images, other.images)


def test_without_a_nuisance_the_generator_transforms(tmp_path, store):
    plain = small_digits(tmp_path, nuisance="none", kind="none", largest=20)
    asked = []

    def darken(images, clean, name, index, first):
        asked.append((name, index))
        return images // (index + 2)

    request = EkldRequest(
        split="test", images_per_class=2, transformations=3, seed=0, under="generator", key={"generator": "darken"}
    )
    pairs = ekld_set(plain, request, store, darken)

    assert [index for _, index in asked] == [0, 1, 2] and len({name for name, _ in asked}) == 1
    assert np.array_equal(pairs.transformed[:, 2], pairs.images // 4)


def test_missing_transformations_are_refused(tmp_path, digits, store):
    plain = small_digits(tmp_path, nuisance="none", kind="none", largest=20)
    with pytest.raises(SpecError, match="data.nuisance is none"):
        ekld_set(plain, REQUEST, store)
    with pytest.raises(SpecError, match="no transformation is given"):
        ekld_set(
            digits,
            EkldRequest(split="test", images_per_class=1, transformations=1, seed=0, under="generator"),
            store,
        )


def test_evaluation_equals_the_formulas(digits, store, model):
    pairs = ekld_set(digits, REQUEST, store)
    with torch.no_grad():  # fresh weights answer alike for all images
        model.head.bias -= logits_by_hand(model, digits, digits.validation.images).mean(0)

    outcome = evaluate(model, digits.validation, pairs, digits, compute())

    predictions = logits_by_hand(model, digits, digits.validation.images).argmax(1).numpy()
    expected = balanced_accuracy_score(digits.validation.labels, predictions)
    assert outcome.scalars["balanced_accuracy"] == pytest.approx(expected, rel=1e-12)
    before = logits_by_hand(model, digits, pairs.images)
    after = logits_by_hand(model, digits, pairs.transformed.reshape(120, 1, 8, 8)).view(40, 3, 10)
    per_image = np.array(expected_kl_by_the_formula(before, after))
    per_class = [per_image[pairs.labels == index].mean() for index in range(10)]
    assert outcome.class_values["ekld_per_class"] == pytest.approx(per_class, rel=1e-3, abs=1e-6)
    assert outcome.scalars["ekld"] == pytest.approx(np.mean(per_class), rel=1e-3)
    assert outcome.scalars["ekld"] > 0
    right = before.argmax(1).numpy() == pairs.labels
    by_answers = [per_image[(pairs.labels == index) & right] for index in range(10)]
    assert outcome.class_values["right_ekld_per_class"] == pytest.approx(
        [answered.mean() if len(answered) else np.nan for answered in by_answers], rel=1e-3, abs=1e-6, nan_ok=True
    )
    assert 0 < right.sum() < len(right)
    same = np.array(consistency_by_counting(before, after))
    per_class = [same[pairs.labels == index].mean() for index in range(10)]
    assert outcome.class_values["consistency_per_class"] == pytest.approx(per_class, rel=1e-12)
    assert outcome.scalars["consistency"] == pytest.approx(np.mean(per_class), rel=1e-12)
    assert 0 < outcome.scalars["consistency"] < 1


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_constant_classifier_has_an_ekld_of_exactly_0_and_a_consistency_of_1(digits, store, model, precision):
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.normal_(model.head.bias, generator=torch.Generator().manual_seed(0))

    outcome = evaluate(model, digits.validation, ekld_set(digits, REQUEST, store), digits, compute(precision))

    assert outcome.scalars["ekld"] == 0.0 and not outcome.class_values["ekld_per_class"].any()
    assert (
        outcome.scalars["consistency"] == 1.0 and outcome.class_values["consistency_per_class"].tolist() == [1.0] * 10
    )
    assert outcome.scalars["balanced_accuracy"] == pytest.approx(0.1)


def test_metrics_have_the_documented_names(digits, store, model):
    with_ekld = evaluate(model, digits.validation, ekld_set(digits, REQUEST, store), digits, compute())
    without = evaluate(model, digits.validation, None, digits, compute())

    accuracies = {"balanced_accuracy", "many_accuracy", "medium_accuracy", "few_accuracy"}
    assert with_ekld.metrics("val").keys() == VALIDATION_METRICS.keys()
    assert without.metrics("test").keys() == {f"test/{name}{end}" for name in accuracies for end in ("", "_se")}
    per_class = {"ekld_per_class", "right_ekld_per_class", "consistency_per_class"}
    assert without.per_class().keys() == {"accuracy_per_class"}
    assert with_ekld.per_class().keys() == {"accuracy_per_class"} | per_class


def test_the_rows_of_a_training_have_exactly_the_metrics_that_a_search_can_optimise(digits, store):
    spec = short_spec(epochs=2, switch_epoch=1, lr_warmup_epochs=0)
    setting = setting_of(digits, ekld=ekld_set(digits, REQUEST, store), evaluation_every=2)
    first, last = train(spec, digits, setting)
    assert (first.metrics.keys(), last.metrics.keys()) == (set(), VALIDATION_METRICS.keys())


def test_a_class_that_is_never_answered_has_no_right_ekld(digits, store, model):
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(10))

    outcome = evaluate(model, digits.validation, ekld_set(digits, REQUEST, store), digits, compute())

    assert outcome.per_class()["right_ekld_per_class"] == [None] * 9 + [0.0]


def test_standard_errors_of_ungrouped_images_are_those_of_independent_ones(digits, store, model):
    pairs = ekld_set(digits, REQUEST, store)
    with torch.no_grad():
        model.head.bias -= logits_by_hand(model, digits, digits.validation.images).mean(0)

    outcome = evaluate(model, digits.validation, pairs, digits, compute())

    correct = logits_by_hand(model, digits, digits.validation.images).argmax(1).numpy() == digits.validation.labels
    few = np.flatnonzero(digits.groups.few)
    for name, classes in (("balanced_accuracy", range(10)), ("few_accuracy", few)):
        of_classes = [correct[digits.validation.labels == label] for label in classes]
        variance = sum(values.var(ddof=1) / len(values) for values in of_classes) / len(of_classes) ** 2
        assert outcome.standard_errors[name] == pytest.approx(np.sqrt(variance), rel=1e-12) and variance > 0
    before = logits_by_hand(model, digits, pairs.images)
    after = logits_by_hand(model, digits, pairs.transformed.reshape(120, 1, 8, 8)).view(40, 3, 10)
    per_image = np.array(expected_kl_by_the_formula(before, after))
    variance = sum(per_image[pairs.labels == label].var(ddof=1) / 4 for label in range(10)) / 100
    assert outcome.standard_errors["ekld"] == pytest.approx(np.sqrt(variance), rel=1e-3)


def grouped(dataset, per_group=5):
    """The same data set whose validation images form groups of ``per_group``: copies of the first image of each."""
    split = dataset.validation
    groups = np.arange(len(split.labels)) // per_group
    first = groups * per_group
    copied = replace(split, images=split.images[first], clean=split.clean[first], groups=groups)
    other = replace(dataset)
    other.__dict__["validation"] = copied  # what the property would map from the file
    return other


def test_standard_errors_of_grouped_images_count_a_group_once(digits, tmp_path, model):
    """Five copies of an image tell nothing more than one: the error is that of the distinct images."""
    data, one_each = grouped(digits), grouped(digits)
    split = data.validation
    kept = slice(None, None, 5)
    one_each.__dict__["validation"] = replace(
        split, images=split.images[kept], clean=split.clean[kept], labels=split.labels[kept], groups=None
    )
    with torch.no_grad():
        model.head.bias -= logits_by_hand(model, digits, split.images).mean(0)
    plain = grouped(digits)
    plain.__dict__["validation"] = replace(split, groups=None)

    def errors(dataset, store):
        request = EkldRequest(split="validation", images_per_class=99, transformations=1, seed=0)
        pairs = ekld_set(dataset, request, store)
        same = replace(pairs, transformed=np.asarray(pairs.images[:, None]) // 2)
        return evaluate(model, dataset.validation, same, dataset, compute()).standard_errors

    store = Store(tmp_path / "store")
    by_group, naive, by_image = errors(data, store), errors(plain, store), errors(one_each, Store(tmp_path / "other"))

    assert by_group == pytest.approx(by_image, rel=1e-9)
    assert by_group.keys() == naive.keys()
    assert all(naive[name] < by_group[name] for name in ("ekld", "consistency"))
    assert len(list((store.root / "ekld").iterdir())) == 2  # one fingerprint, two groupings


def test_ekld_is_measured_on_as_many_groups_as_there_are(digits, store):
    data = grouped(digits)
    request = EkldRequest(split="validation", images_per_class=2, transformations=1, seed=0)

    pairs = ekld_set(data, request, store)

    assert len(np.unique(pairs.groups)) == len(pairs.groups) == 20  # every class has two groups of five


def test_unequal_validation_classes_and_one_without_images(digits, store, model):
    """Means are over the classes that have images; the class without has no value."""
    split = digits.validation
    kept = np.concatenate([np.flatnonzero(split.labels == label)[: 10 - label] for label in range(9)])
    data = replace(digits)
    parts = {name: getattr(split, name)[kept] for name in ("images", "clean", "labels", "source")}
    data.__dict__["validation"] = replace(split, **parts)

    outcome = evaluate(model, data.validation, ekld_set(data, REQUEST, store), data, compute())

    for scalar, name in (("balanced_accuracy", "accuracy_per_class"), ("ekld", "ekld_per_class")):
        values = outcome.class_values[name]
        assert np.isnan(values[9]) and outcome.per_class()[name][9] is None
        assert outcome.scalars[scalar] == pytest.approx(np.nanmean(values), rel=1e-12)
    assert np.isfinite(list(outcome.metrics("val").values())).all()


def test_evaluation_leaves_mode_and_running_statistics_alone(digits, model):
    model.train()
    before = model.norm.running_mean.clone()

    evaluate(model, digits.validation, None, digits, compute())

    assert model.training and torch.equal(model.norm.running_mean, before)


def test_nan_in_the_classifiers_output_is_a_failure(digits, model):
    torch.nn.init.constant_(model.head.weight, float("nan"))

    with pytest.raises(TrialFailedError, match="output became nan"):
        evaluate(model, digits.validation, None, digits, compute())


def test_pairs_are_memory_mapped_and_read_only(digits, store):
    pairs = ekld_set(digits, REQUEST, store)

    assert isinstance(pairs, EkldSet) and isinstance(pairs.transformed, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pairs.transformed[0] = 0


@pytest.mark.parametrize("name", ["images", "transformed", "labels", "groups"])
@pytest.mark.parametrize("left", [0, 100, 150])
def test_a_truncated_set_is_refused_with_its_directory_and_built_anew(digits, store, name, left):
    directory = ekld_set(digits, REQUEST, store).directory
    file = directory / f"{name}.npy"
    file.write_bytes(file.read_bytes()[:left])

    with pytest.raises(StoreError, match=f"{directory} is not .*run the same command again"):
        EkldSet.open(directory)
    assert len(ekld_set(digits, REQUEST, store).labels) == 40


def test_a_full_disk_while_building_a_set_is_an_error_and_no_death(digits, tmp_path):
    request = EkldRequest(split="validation", images_per_class=4, transformations=500, seed=0)
    with small_disk(tmp_path / "disk", "512k") as disk, pytest.raises(DiskError, match="No space left"):
        ekld_set(digits, request, Store(disk))


@pytest.mark.parametrize(("images_per_class", "transformations"), [(4, 3), (9, 70), (1, 300)])
def test_an_evaluation_without_stored_transformations_gives_the_same_numbers(
    digits, store, tmp_path, model, monkeypatch, images_per_class, transformations
):
    request = EkldRequest(split="test", images_per_class=images_per_class, transformations=transformations, seed=0)
    with torch.no_grad():
        model.head.bias -= logits_by_hand(model, digits, digits.test.images).mean(0)
    stored = ekld_set(digits, request, store)
    expected = evaluate(model, digits.test, stored, digits, compute())
    monkeypatch.setattr(bounds, "EKLD_BYTES", stored.transformed.nbytes - 1)
    monkeypatch.setattr(bounds, "CHUNK_BYTES", 5 * transformations * 64)
    drawn = ekld_set(digits, request, Store(tmp_path / "drawn"))

    assert not (drawn.directory / "transformed.npy").exists()
    parts = list(drawn.transformed_parts())
    assert len(parts) == -(-10 * images_per_class // 5) and len(parts[0]) == 5
    assert np.array_equal(np.concatenate(parts), stored.transformed)
    outcome = evaluate(model, digits.test, drawn, digits, compute())
    assert outcome.metrics("test") == expected.metrics("test")
    assert outcome.per_class() == expected.per_class()


def test_metrics_of_a_few_images_are_those_of_all_at_once():
    """An evaluation measures images as soon as they are complete; the numbers must not depend on how many those are."""
    log_p = torch.log_softmax(torch.randn(70, 1000, dtype=torch.float64), 1)
    log_q = torch.log_softmax(torch.randn(70, 9, 1000, dtype=torch.float64), 2)
    for metric in PAIR_METRICS.values():
        parts = [metric(log_p[part], log_q[part]) for part in (slice(0, 1), slice(1, 3), slice(3, 70))]
        assert torch.equal(torch.cat(parts), metric(log_p, log_q))


def test_transformations_under_the_generator_are_drawn_from_whole_batches(tmp_path, store, monkeypatch):
    plain = small_digits(tmp_path, nuisance="none", kind="none", largest=20)
    maker = BlockMaker(RandAugmentGenerator(2, 9, plain.image_shape), plain.train, seed=3, block_size=8)
    request = EkldRequest(split="test", images_per_class=15, transformations=2, seed=0, under="generator", key={})
    stored = ekld_set(plain, request, store, maker.transform)
    monkeypatch.setattr(bounds, "EKLD_BYTES", 0)
    monkeypatch.setattr(bounds, "CHUNK_BYTES", 1)

    drawn = ekld_set(plain, request, Store(tmp_path / "drawn"), maker.transform)

    assert [len(part) for part in drawn.transformed_parts()] == [64, 64, 22]
    assert np.array_equal(np.concatenate(list(drawn.transformed_parts())), stored.transformed)
    with pytest.raises(SpecError, match="no transformation is given"):
        EkldSet.open(drawn.directory)
