"""Whose the epochs of a trial are: names, rows and the driver's hold on what was shared."""

import json
from types import SimpleNamespace

from gitdist.store import Store
from gitdist.store.layout import StoreLayout
from gitdist.store.pins import pinned
from gitdist.study.files.attribution import ReusedPrefix, SharedEpochs, epoch_seconds, own_rows, trainer_name
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.resources.stream import StreamResources
from tests.epoch_rows import epoch_row

THIRD = TrialId("trial", 3)


def rows_by(*trainers):
    return [
        epoch_row(epoch, trained_by=trainer, train_s=2.0, evaluating_s=0.5) for epoch, trainer in enumerate(trainers, 1)
    ]


def test_trials_of_studies_that_have_the_same_name_have_different_ones(tmp_path):
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    assert trainer_name(paths, BASELINE) == "study/baseline"
    for identity in ("0123456789abcdef", "fedcba9876543210"):
        paths.identity.write_text(identity)
        assert trainer_name(paths, THIRD) == f"study-{identity[:8]}/3"


def test_only_epochs_of_the_prefix_are_shared():
    rows = rows_by("s/0", "s/1", "s/2", "s/3")
    assert SharedEpochs.of(rows, "s/3", ReusedPrefix("key", 2)) == SharedEpochs(2, "s/0, s/1", 5.0)
    assert SharedEpochs.of(rows, "s/3", None) is None
    assert SharedEpochs.of(rows_by("s/3", "s/2"), "s/3", ReusedPrefix("key", 1)) is None
    assert epoch_seconds(own_rows(rows, "s/3")) == 2.5


def test_the_driver_holds_a_prefix_from_the_first_row_of_a_trial_that_took_it(tmp_path):
    paths, store = StudyPaths.at(tmp_path, "study"), Store(tmp_path / "store")
    artifact = store.get_or_build("prefix", {}, lambda target, _: (target / "state").touch())
    store = Store(tmp_path / "store")
    directory = paths.trial(THIRD)
    directory.mkdir(parents=True)
    running = SimpleNamespace(
        study=SimpleNamespace(paths=paths), store=store, spec=SimpleNamespace(sharing=SimpleNamespace(stream=False))
    )
    resources = StreamResources(running, None, None)
    with store.pin_used("study"):
        resources.pin_prefix(THIRD)
        assert not pinned(StoreLayout(store.root))
        (directory / "trial.json").write_text(json.dumps({"prefix": artifact.name, "prefix_epochs": 1}))
        resources.pin_prefix(THIRD)
        assert pinned(StoreLayout(store.root)) == {f"prefix-{artifact.name}": {"study"}}
