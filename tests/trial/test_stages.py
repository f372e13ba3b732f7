"""The shared prefix: what it depends on, that it is trained once, and that no number changes by sharing it."""

import shutil
from contextlib import closing

import pytest

from gitdist.errors import TrialFailedError
from gitdist.spec import TrialSpec
from gitdist.store import Store, content_key
from gitdist.stream.draw_stream import DrawStream
from gitdist.trial import stages
from gitdist.trial.checkpoint import load_checkpoint
from gitdist.trial.evaluation import EkldRequest, ekld_set
from gitdist.trial.stages import shared_prefix, train_in_stages
from tests.trial.toys import assert_same_state, setting_of, short_spec, stream_of, timeless, whole

SWITCH = 2
LATE = {  # fields that nothing before the switch reads, each with another value
    "class_weights": "inverse",
    "weights_deferred": False,
    "sampler": "square-root",
    "threshold": 40,
    "threshold_kind": "hard",
    "fraction": 0.25,
    "effective_beta": 0.9,
    "epochs": 5,
    "lr_milestones": (2, 3),
    "lr_decay": 0.5,
    "ldam_margin": 0.4,
    "ldam_scale": 20.0,
    "focal_gamma": 2.0,
    "logit_tau": 1.5,
    "randaugment_magnitude": 3,
    "network_options": {"drop_rate": 0.1},
}
EARLY = {
    "network": "resnet32",
    "pretrained": "/weights.safetensors",
    "normalize": "imagenet",
    "loss": "ldam",
    "switch_epoch": 1,
    "batch_size": 16,
    "lr": 0.1,
    "lr_warmup_epochs": 0,
    "momentum": 0.8,
    "weight_decay": 0.0,
    "true_nuisance": True,
    "crop_padding": 0,
    "flip": False,
    "randaugment_ops": 1,
    "mixup_alpha": 0.2,
    "ema_decay": 0.9,
    "compile": True,
    "precision": "bf16",
    "seed": 1,
}


def spec_of(**fields):
    return short_spec(**{"epochs": 4, "switch_epoch": SWITCH, "lr_milestones": (3,), **fields})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def staged(spec, digits, directory, store, name="study/0", **fields):
    """Train in stages; return all rows and those that the trial trained itself."""
    rows = [row for rows in begin(spec, digits, directory, store, name, **fields) for row in rows]
    return rows, own_epochs(rows, name)


def begin(spec, digits, directory, store, name="study/0", on_prefix=lambda key, epochs: None, **fields):
    directory.mkdir(exist_ok=True)
    setting = setting_of(digits, directory, trained_by=name, **fields)
    return train_in_stages(spec, digits, setting, store, on_prefix)


def key_of(spec, digits, setting):
    return content_key("prefix", shared_prefix(spec).determined_by(digits, setting))


def own_epochs(rows, name):
    return [row.epoch for row in rows if row.trained_by == name]


def test_every_field_is_listed_as_read_before_the_switch_or_not():
    assert LATE.keys() | EARLY.keys() == TrialSpec.model_fields.keys()


@pytest.mark.parametrize("name", LATE)
def test_what_nothing_reads_before_the_switch_does_not_change_the_prefix(name):
    assert shared_prefix(spec_of(**{name: LATE[name]})) == shared_prefix(spec_of())


def test_of_deferred_weights_nothing_matters_before_the_switch():
    weighted = {"class_weights": "effective-number", "effective_beta": 0.9}
    assert shared_prefix(spec_of(**weighted)) == shared_prefix(spec_of())


@pytest.mark.parametrize("name", EARLY)
def test_what_is_read_before_the_switch_changes_the_prefix(name):
    assert shared_prefix(spec_of(**{name: EARLY[name]})) != shared_prefix(spec_of())


@pytest.mark.parametrize(
    ("name", "value", "needs"),
    [
        ("lr_milestones", (1, 3), {}),
        ("lr_decay", 0.5, {"lr_milestones": (1,)}),
        ("ldam_margin", 0.4, {"loss": "ldam"}),
        ("ldam_scale", 20.0, {"loss": "ldam"}),
        ("class_weights", "inverse", {"weights_deferred": False}),
        ("weights_deferred", False, {"class_weights": "inverse"}),
        ("effective_beta", 0.9, {"class_weights": "effective-number", "weights_deferred": False}),
        ("focal_gamma", 2.0, {"loss": "focal"}),
        ("logit_tau", 1.5, {"loss": "logit-adjustment"}),
        ("randaugment_magnitude", 3, {"randaugment_ops": 1}),
        ("network_options", {"drop_rate": 0.1}, {"network": "timm:test_resnet"}),
    ],
)
def test_a_late_field_that_is_read_early_after_all_changes_the_prefix(name, value, needs):
    assert shared_prefix(spec_of(**needs, **{name: value})) != shared_prefix(spec_of(**needs))


@pytest.mark.parametrize(("switch", "epochs"), [(0, None), (1, 1), (3, 3), (4, 3)])
def test_the_last_epoch_is_never_shared(switch, epochs):
    prefix = shared_prefix(spec_of(switch_epoch=switch))
    assert (prefix and prefix.epochs) == epochs


def test_the_key_knows_what_else_the_rows_depend_on(digits, tmp_path):
    pairs = ekld_set(
        digits, EkldRequest(split="validation", images_per_class=1, transformations=1, seed=0), Store(tmp_path)
    )
    keys = [
        key_of(spec_of(), digits, setting_of(digits, **fields))
        for fields in ({}, {"ekld": pairs}, {"evaluation_every": 2}, {"precision": "bf16"})
    ]
    late = spec_of(**LATE | {"weights_deferred": True})
    assert len(set(keys)) == 4 and keys[0] == key_of(late, digits, setting_of(digits))


@pytest.mark.parametrize("every", [1, 3])
def test_trials_of_one_prefix_train_it_once_and_compute_what_each_computes_alone(digits, tmp_path, store, every):
    others = {"sampler": "class-balanced", "threshold": None, "threshold_kind": "hard", "fraction": 0.75}
    for number, spec in enumerate([spec_of(), spec_of(**others), spec_of(fraction=0.0, epochs=3)]):
        alone = whole(spec, digits, tmp_path / f"alone{number}", evaluation_every=every)
        rows, own = staged(spec, digits, tmp_path / f"{number}", store, f"study/{number}", evaluation_every=every)
        assert timeless(rows) == alone[0]
        assert_same_state(load_checkpoint(tmp_path / f"{number}"), alone[1])
        assert own == list(range(1 if number == 0 else SWITCH + 1, spec.epochs + 1))
    assert [artifact.name for artifact in (store.root / "prefix").iterdir()] == [
        key_of(spec_of(), digits, setting_of(digits, evaluation_every=every))
    ]


def test_ema_and_mixup_continue_from_a_shared_prefix_as_in_training_alone(digits, tmp_path, store):
    fields = {"epochs": 3, "ema_decay": 0.9, "mixup_alpha": 0.4, "class_weights": "inverse", "loss": "balanced-softmax"}
    staged(spec_of(**fields), digits, tmp_path / "0", store)
    spec = spec_of(**fields | {"class_weights": "effective-number", "sampler": "progressively-balanced"})
    alone = whole(spec, digits, tmp_path / "alone")
    rows, own = staged(spec, digits, tmp_path / "1", store, "study/1")
    assert timeless(rows) == alone[0] and own == [3]
    assert_same_state(load_checkpoint(tmp_path / "1"), alone[1])


def test_the_next_trial_resumes_an_interrupted_prefix(digits, tmp_path, store):
    alone, _ = whole(spec_of(), digits, tmp_path / "alone")
    with closing(begin(spec_of(), digits, tmp_path / "first", store)) as training:
        assert next(training) == [] and [row.epoch for row in next(training)] == [1]
    rows, own = staged(spec_of(), digits, tmp_path / "second", store, "study/1")
    assert timeless(rows) == alone and own == [2, 3, 4] and rows[0].trained_by == "study/0"
    rows, own = staged(spec_of(), digits, tmp_path / "first", store, "study/0")
    assert timeless(rows) == alone and own == [1, 3, 4]


def test_a_stopped_builder_does_not_keep_other_trials_from_finishing(digits, tmp_path, store):
    alone, _ = whole(spec_of(), digits, tmp_path / "alone")
    stopped = begin(spec_of(), digits, tmp_path / "0", store)
    before = [*next(stopped), *next(stopped)]
    rows, own = staged(spec_of(), digits, tmp_path / "1", store, "study/1")
    assert timeless(rows) == alone and own == [2, 3, 4]
    rows = before + [row for rows in stopped for row in rows]
    assert timeless(rows) == alone and own_epochs(rows, "study/0") == [1, 3, 4]


def test_a_waiting_trial_yields_nothing_and_takes_over_from_a_builder_that_stays_away(
    digits, tmp_path, store, monkeypatch
):
    spec = spec_of(switch_epoch=3)
    alone, _ = whole(spec, digits, tmp_path / "alone")
    trials = [begin(spec, digits, tmp_path / str(number), store, f"study/{number}") for number in range(3)]
    builder, other, latest = trials
    rows = {trial: list(next(trial)) for trial in trials[:2]}

    def advance(trial):
        new = next(trial)
        rows.setdefault(trial, []).extend(new)
        return [row.epoch for row in new]

    assert advance(builder) == [1] and advance(other) == []
    assert advance(builder) == [2] and advance(other) == []
    monkeypatch.setattr(stages, "_BUILDER_TIMEOUT_S", 0.0)
    assert advance(other) == [1, 2] and advance(latest) == [1, 2] and advance(latest) == [3]
    assert advance(other) == [3] and advance(builder) == [3]
    for trial in trials:
        rows[trial] += [row for some in trial for row in some]
        assert timeless(rows[trial]) == alone
        assert [row.trained_by for row in rows[trial][:3]] == ["study/0", "study/0", "study/2"]
    assert not list((store.root / "work").iterdir())


def test_a_waiting_trial_calls_check_before_each_attempt(digits, tmp_path, store):
    class StaleAttempt(Exception):
        pass

    def check():
        if superseded:
            raise StaleAttempt

    superseded = []
    waiting = begin(spec_of(), digits, tmp_path / "0", store, check=check)
    with store.lock("prefix", shared_prefix(spec_of()).determined_by(digits, setting_of(digits)), blocking=False):
        assert next(waiting) == [] and next(waiting) == []
        superseded.append(True)
        with pytest.raises(StaleAttempt):
            next(waiting)


def test_a_prefix_that_is_removed_before_it_is_copied_is_trained_again(digits, tmp_path, store):
    alone, _ = whole(spec_of(), digits, tmp_path / "alone")
    taken = []

    def lose(key, epochs):
        taken.append((key, epochs))
        if len(taken) == 1:
            shutil.rmtree(store.root / "prefix" / key)

    rows, own = staged(spec_of(), digits, tmp_path / "0", store, on_prefix=lose)
    assert timeless(rows) == alone and own == [1, 2, 3, 4]
    assert taken == [(key_of(spec_of(), digits, setting_of(digits)), SWITCH)] * 2


def test_the_draws_are_announced_once(digits, tmp_path, store):
    class Counting(DrawStream):
        def plan(self, draws):
            announced.append(draws.sum())
            super().plan(draws)

    for directory in (tmp_path / "0", tmp_path / "1"):
        announced = []
        rows, _ = staged(spec_of(), digits, directory, store, stream=stream_of(digits, kind=Counting))
        assert announced == [sum(row.draws for row in rows)]


def test_a_trial_that_began_alone_resumes_alone(digits, tmp_path, store):
    whole(spec_of(), digits, tmp_path / "0", stop_after=1, trained_by="study/0")
    rows, own = staged(spec_of(), digits, tmp_path / "0", store)
    assert own == [1, 2, 3, 4] and not (store.root / "prefix").exists()


def test_a_longer_prefix_resumes_from_a_shorter_one(digits, tmp_path, store):
    alone = whole(spec_of(switch_epoch=3), digits, tmp_path / "alone")
    staged(spec_of(switch_epoch=1), digits, tmp_path / "0", store, "study/0")
    rows, own = staged(spec_of(switch_epoch=3), digits, tmp_path / "1", store, "study/1")
    assert own == [2, 3, 4] and timeless(rows) == alone[0]
    assert_same_state(load_checkpoint(tmp_path / "1"), alone[1])


def test_a_prefix_that_diverges_fails_every_trial_with_the_same_reason(digits, tmp_path, store):
    spec = spec_of(lr=1e30, lr_warmup_epochs=0)
    reasons = set()
    for number in (0, 1):
        with pytest.raises(TrialFailedError) as failure:
            staged(spec, digits, tmp_path / f"{number}", store)
        reasons.add(str(failure.value))
    assert len(reasons) == 1 and not (store.root / "prefix").exists()
