import importlib
import itertools
import shutil
import time
from copy import deepcopy

import numpy as np
import pytest
import torch

from gitdist.data.dataset import prepare
from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.errors import SpecError, StoreError, StreamError, TrialFailedError
from gitdist.generator.oracle import IdentityGenerator
from gitdist.networks import build_classifier
from gitdist.seeds import numpy_rng, torch_rng
from gitdist.spec import DataSpec, TrialSpec
from gitdist.store import Store
from gitdist.stream.draw_stream import DrawStream
from gitdist.trial.augmentation import CropFlip, InputPipeline, Normaliser, epoch_mixup
from gitdist.trial.checkpoint import checkpoints_of, completed_rows, load_checkpoint, load_classifier
from gitdist.trial.evaluation import EkldRequest, ekld_set, evaluate
from gitdist.trial.mixing import replaced_samples
from gitdist.trial.plan import build_loss, epoch_indices
from gitdist.trial.training import EpochTrainer, TrialSetting, resume_training, train
from tests.trial.toys import (
    IMPORTS_INDUCTOR,
    assert_same_state,
    compute,
    same_weights,
    setting_of,
    short_spec,
    small_digits,
    stream_of,
    timeless,
    whole,
    write_digits,
)


class Untouchable:
    """A stream that must not be touched."""

    def __getattribute__(self, name):
        raise AssertionError(f"the stream was touched: {name}")


def trainer_of(spec, dataset):
    model = build_classifier("resnet20", (1, 8, 8), 10, rng=torch_rng(spec.seed, "trial/weights"))
    return EpochTrainer(spec, dataset, stream_of(dataset), model, compute())


class RecordingStream(DrawStream):
    """Remembers the labels of all draws."""

    def take(self, labels):
        self.__dict__.setdefault("taken", []).append(labels.copy())
        return super().take(labels)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_spec_gives_the_same_rows_and_weights(digits, tmp_path, precision):
    spec = short_spec(epochs=2)

    first, second = (whole(spec, digits, tmp_path / name, precision) for name in ("a", "b"))

    assert first[0] == second[0] and len(first[0]) == 2
    assert same_weights(first[1].model, second[1].model)


def test_another_seed_gives_other_rows(digits, tmp_path):
    first, second = (whole(short_spec(epochs=1, seed=seed), digits, tmp_path / str(seed)) for seed in (0, 1))

    assert first[0] != second[0]


EVERY_RULE = {
    "loss": "focal",
    "class_weights": "effective-number",
    "sampler": "progressively-balanced",
    "mixup_alpha": 0.4,
    "ema_decay": 0.9,
}


@pytest.mark.parametrize("rules", [{}, {"loss": "ldam"}, EVERY_RULE], ids=["plain", "ldam", "every rule"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_resumed_training_is_bit_identical_to_uninterrupted(digits, tmp_path, precision, rules):
    spec = short_spec(**rules)
    rows, expected = whole(spec, digits, tmp_path / "whole", precision)

    for _ in range(spec.epochs):
        next(train(spec, digits, setting_of(digits, tmp_path / "parts", precision)))

    found = load_checkpoint(tmp_path / "parts")
    assert timeless(found.rows) == rows and found.cursors.sum() > 0
    assert_same_state(found, expected)


def test_the_average_is_evaluated_and_the_training_left_as_it_is(digits, tmp_path):
    spec = short_spec(epochs=2, ema_decay=0.9)
    rows, checkpoint = whole(spec, digits, tmp_path / "averaged")
    plain_rows, plain = whole(short_spec(epochs=2), digits, tmp_path / "plain")

    model = load_classifier(spec, digits, tmp_path / "averaged", compute())

    assert same_weights(model.state_dict(), checkpoint.average["classifier"])
    assert same_weights(checkpoint.model, plain.model) and not same_weights(checkpoint.model, model.state_dict())
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in plain_rows]
    evaluation = evaluate(model, digits.validation, None, digits, compute())
    assert evaluation.per_class()["accuracy_per_class"] == rows[-1]["val/accuracy_per_class"]
    assert rows[-1]["val/accuracy_per_class"] != plain_rows[-1]["val/accuracy_per_class"]


def test_a_finished_trial_yields_nothing_more(digits, tmp_path):
    spec = short_spec(epochs=2)
    whole(spec, digits, tmp_path)

    assert list(train(spec, digits, setting_of(digits, tmp_path))) == []


VARIANTS = [
    {"sampler": "class-balanced", "threshold": None, "threshold_kind": "hard", "fraction": 1.0},
    {"sampler": "square-root", "threshold": 12, "threshold_kind": "soft", "fraction": 0.25},
    {"sampler": "instance", "threshold": 20, "threshold_kind": "hard", "fraction": 0.0},
]


def test_before_the_switch_nothing_depends_on_sampler_threshold_or_fraction(digits, tmp_path):
    runs = [
        whole(short_spec(epochs=3, switch_epoch=2, **variant), digits, tmp_path / str(number))[0]
        for number, variant in enumerate(VARIANTS)
    ]

    for first, second in itertools.pairwise(runs):
        assert first[:2] == second[:2]
        assert first[2] != second[2]
    assert [row["draws"] for row in runs[0][:2]] == [0, 0]


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_resuming_from_a_shared_prefix_equals_training_alone(digits, tmp_path, variant):
    shared = short_spec(epochs=3, switch_epoch=2, **VARIANTS[2])
    list(train(shared, digits, setting_of(digits, tmp_path / "prefix", evaluation_every=5, stop_after=2)))
    spec = short_spec(epochs=3, switch_epoch=2, **variant)
    shutil.copytree(tmp_path / "prefix", tmp_path / "shared")

    list(train(spec, digits, setting_of(digits, tmp_path / "shared", evaluation_every=5)))

    rows, expected = whole(spec, digits, tmp_path / "alone", evaluation_every=5)
    assert timeless(completed_rows(tmp_path / "shared")) == rows
    assert same_weights(load_checkpoint(tmp_path / "shared").model, expected.model)


@pytest.mark.parametrize("fields", [{"fraction": 0.0}, {"switch_epoch": 1}, {"threshold": 2, "threshold_kind": "hard"}])
def test_a_trial_that_replaces_nothing_never_touches_the_stream(digits, fields):
    spec = short_spec(**{"epochs": 1, "switch_epoch": 0, **fields})

    (row,) = train(spec, digits, setting_of(digits, stream=Untouchable()))

    assert row.draws == 0 and row.waiting_s == 0.0


def test_augmentation_without_a_stream_is_an_error(digits):
    with pytest.raises(StreamError, match="trial.fraction = 0.5 came without one"):
        next(train(short_spec(), digits, setting_of(digits, stream=None)))


def test_a_soft_threshold_below_all_classes_is_an_error(digits):
    with pytest.raises(SpecError, match="6 images"):
        next(train(short_spec(threshold=6), digits, setting_of(digits)))


def test_draws_are_counted_and_belong_to_the_classes_below_the_threshold(digits, tmp_path):
    spec = short_spec(epochs=2, switch_epoch=1, sampler="class-balanced", threshold=20, threshold_kind="hard")
    stream = stream_of(digits, kind=RecordingStream)

    rows, checkpoint = whole(spec, digits, tmp_path, stream=stream)

    taken = np.concatenate(stream.taken)
    assert rows[0]["draws"] == 0 and rows[1]["draws"] == len(taken) > 0
    assert set(taken) <= set(np.flatnonzero(digits.class_sizes < 20))
    assert checkpoint.cursors.tolist() == np.bincount(taken, minlength=10).tolist()


def test_draws_replace_samples_at_their_indices(tmp_path):
    # A class of one image, drawn without transformation, gives that image again: nothing may change.
    singles = small_digits(tmp_path, kind="step", largest=30, factor=0.01)
    assert singles.class_sizes.tolist() == [30] * 5 + [1] * 5
    spec = short_spec(
        epochs=2, switch_epoch=0, sampler="class-balanced", threshold=2, threshold_kind="hard", fraction=1
    )

    replaced, checkpoint = whole(spec, singles, tmp_path / "a", stream=stream_of(singles, IdentityGenerator()))
    plain, _ = whole(spec.model_copy(update={"fraction": 0.0}), singles, tmp_path / "b", stream=None)

    assert replaced[1].pop("draws") > 30 and plain[1].pop("draws") == 0
    assert replaced[1] == plain[1]


def test_a_loss_that_is_not_finite_fails_the_trial_with_epoch_and_step(digits):
    spec = short_spec(lr=1e30, lr_warmup_epochs=0, switch_epoch=4)

    with pytest.raises(TrialFailedError, match=r"^loss became (nan|inf) in epoch 1, step [2-7]$"):
        list(train(spec, digits, setting_of(digits)))


def test_only_due_epochs_and_the_last_are_evaluated(digits, tmp_path):
    request = EkldRequest(split="validation", images_per_class=2, transformations=2, seed=0)
    pairs = ekld_set(digits, request, Store(tmp_path))

    rows = list(train(short_spec(epochs=3), digits, setting_of(digits, ekld=pairs, evaluation_every=2)))

    assert ["val/balanced_accuracy" in row.metrics for row in rows] == [False, True, True]
    assert len(rows[1].per_class["accuracy_per_class"]) == len(rows[1].per_class["ekld_per_class"]) == 10
    for name in ("consistency", "ekld"):
        assert rows[2].metrics[f"val/{name}"] == pytest.approx(np.mean(rows[2].per_class[f"{name}_per_class"]))
    assert rows[0].per_class == {} and rows[0].train_s > 0


def test_the_loaded_classifier_is_the_trained_one(digits, tmp_path):
    spec = short_spec(epochs=1, loss="ldam")
    _, checkpoint = whole(spec, digits, tmp_path)

    model = load_classifier(spec, digits, tmp_path, compute())

    assert not model.training and same_weights(model.state_dict(), checkpoint.model)


def test_a_trial_without_its_last_checkpoint_has_no_classifier(digits, tmp_path):
    with pytest.raises(StoreError, match=f"whole checkpoint of epoch 4, but {tmp_path} has none"):
        load_classifier(short_spec(), digits, tmp_path, compute())
    list(train(short_spec(), digits, setting_of(digits, tmp_path)))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(StoreError, match=f"{tmp_path} has only one of epoch 3"):
        load_classifier(short_spec(), digits, tmp_path, compute())


def test_resuming_gives_the_completed_rows_and_the_rest(digits, tmp_path):
    rows, _ = whole(short_spec(), digits, tmp_path / "whole")
    list(train(short_spec(), digits, setting_of(digits, tmp_path / "parts", stop_after=2)))

    completed, training = resume_training(short_spec(), digits, setting_of(digits, tmp_path / "parts"))

    assert timeless(completed) == rows[:2]
    assert timeless(list(training)) == rows[2:] and len(completed) == 2


def test_a_refusal_before_saving_ends_training_without_that_checkpoint(digits, tmp_path):
    calls = []

    def refuse_the_third():
        calls.append(checkpoints_of(tmp_path).newest())
        if len(calls) == 3:
            raise RuntimeError("not yours any more")

    with pytest.raises(RuntimeError, match="not yours"):
        list(train(short_spec(), digits, setting_of(digits, tmp_path, check=refuse_the_third)))

    assert calls == [0, 1, 2] and checkpoints_of(tmp_path).newest() == 2


def test_a_row_has_the_time_at_which_its_epoch_ended_and_the_checkpoint_keeps_it(digits, tmp_path):
    before = time.time()
    rows = list(train(short_spec(epochs=2), digits, setting_of(digits, tmp_path)))

    assert before <= rows[0].ended_at <= rows[1].ended_at <= time.time()
    assert completed_rows(tmp_path) == rows


def test_training_learns_the_digits(tmp_path):
    data = DataSpec(source="npz", path=str(write_digits(tmp_path / "digits")), validation_per_class=None)
    dataset = prepare(data, Store(tmp_path / "store"))
    spec = TrialSpec(
        epochs=5,
        switch_epoch=5,
        fraction=0,
        batch_size=32,
        lr=0.05,
        lr_warmup_epochs=1,
        lr_milestones=(3,),
        lr_decay=0.1,
    )

    *_, last = train(spec, dataset, TrialSetting(compute=compute("auto")))

    assert last.metrics["val/balanced_accuracy"] > 0.8


def test_the_network_sees_mixed_then_cropped_and_flipped_then_randaugmented_then_normalised_images(digits):
    spec = short_spec(switch_epoch=0, randaugment_ops=2, randaugment_magnitude=12, batch_size=64)
    trainer, seen = trainer_of(spec, digits), []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))

    trainer.run(1)

    sizes, samples = digits.class_sizes, digits.train
    indices = epoch_indices(spec, samples.labels, sizes, 1)
    mask = replaced_samples(spec, samples.labels[indices], sizes, 1)[:64]
    labels, images = samples.labels[indices[:64]], samples.images[indices[:64]]
    images[mask] = stream_of(digits).take(labels[mask])
    crop_rng, operations_rng = (numpy_rng(spec.seed, f"trial/{name}", 1) for name in ("placement", "randaugment"))
    cropped = CropFlip.draw(len(indices), spec.crop_padding, spec.flip, crop_rng)(torch.from_numpy(images))
    codes = draw_operations(len(indices), 2, operations_rng)[:, :64]
    pixels = RandAugment(12, digits.image_shape)(cropped, codes)
    assert mask.any() and torch.equal(seen[0], Normaliser(digits.mean, digits.std)(pixels))


@pytest.mark.parametrize("loss", ["ldam", "focal", "balanced-softmax"])
def test_a_step_trains_on_blended_inputs_with_the_blended_and_weighted_loss(digits, loss):
    spec = short_spec(loss=loss, mixup_alpha=0.4, class_weights="inverse", weights_deferred=False, batch_size=1000)
    trainer, seen = trainer_of(spec, digits), []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    fresh = deepcopy(trainer.model)

    row = trainer.run(1)

    sizes, count = digits.class_sizes, len(digits.train.labels)
    indices = epoch_indices(spec, digits.train.labels, sizes, 1)
    images = torch.from_numpy(digits.train.images[indices])
    inputs = InputPipeline(spec, digits, torch.device("cpu")).for_epoch(1, count)(images, 0)
    plain = build_loss(spec, sizes, 1)
    inputs, blended = epoch_mixup(spec, 1, count)(inputs, plain, 0)
    assert len(seen) == 1 and torch.equal(seen[0], inputs)
    expected = blended(fresh.train()(inputs), torch.from_numpy(digits.train.labels[indices]))
    assert row.loss == pytest.approx(expected.item(), rel=1e-6)


def test_randaugment_changes_training_and_resumes_after_an_interruption(digits, tmp_path):
    spec = short_spec(epochs=2, randaugment_ops=2)
    without, _ = whole(short_spec(epochs=2), digits, tmp_path / "without")
    rows, state = whole(spec, digits, tmp_path / "whole")
    whole(spec, digits, tmp_path / "parts", stop_after=1)
    rest, resumed = whole(spec, digits, tmp_path / "parts")

    assert rest == rows[1:]
    assert_same_state(resumed, state)
    assert [row["draws"] for row in rows] == [row["draws"] for row in without]
    assert rows[0]["train/loss"] != without[0]["train/loss"]


def test_without_operations_the_magnitude_moves_nothing(digits, tmp_path):
    first, second = (
        whole(short_spec(epochs=1, randaugment_magnitude=magnitude), digits, tmp_path / str(magnitude))
        for magnitude in (9, 30)
    )

    assert first[0] == second[0] and same_weights(first[1].model, second[1].model)


@IMPORTS_INDUCTOR
def test_a_missing_compiler_ends_a_compiled_trial_with_one_line(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before needs no compiler
    config = importlib.import_module("torch._inductor.config")

    with (
        config.patch({"cpp.cxx": (None, "/nowhere/c++")}),
        pytest.raises(TrialFailedError, match="/nowhere/c.*set trial.compile to false") as raised,
    ):
        trainer_of(short_spec(compile=True), digits).run(1)

    assert "\n" not in str(raised.value)
