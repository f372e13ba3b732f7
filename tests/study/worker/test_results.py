"""A worker whose results are on an object store, on another machine than the driver: another directory of copies."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from gitdist.data.dataset import prepare
from gitdist.spec import OracleSpec, SharingSpec, StreamSpec, StudySpec
from gitdist.stream.server import ServerConfig
from gitdist.study.files.layout import StudyPaths, TrialId, open_store
from gitdist.study.files.results import ObjectStoreResults
from gitdist.study.files.rows import read_rows, repair_trial
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.retry import copy_checkpoints
from gitdist.study.study import Study
from gitdist.study.worker.job import TrialContext, TrialJob
from gitdist.study.worker.trial_task import evaluate_on_test, restore_epochs
from gitdist.trial.ekld import EkldRequest, ekld_set
from tests.study.worker.trial_thread import TrialThread
from tests.trial.toys import short_spec, timeless

FAILED, AGAIN, TRIAL = (TrialId("trial", number) for number in (0, 1, 3))
DATA = {
    "source": "digits",
    "nuisance": "rotation",
    "profile": {"kind": "exponential", "largest": 60, "factor": 0.1},
    "validation_per_class": 10,
}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def context_of(paths: StudyPaths, prefix: bool = True) -> tuple[TrialContext, Path]:
    """What a driver sends to workers, and the directory of the eKLD images of the test split."""
    trial = short_spec(epochs=3, switch_epoch=1, fraction=0.5, lr_milestones=(2,))
    stream = StreamSpec(block_size=16)
    spec = StudySpec(name="study", data=DATA, trial=trial, stream=stream, sharing=SharingSpec(prefix=prefix))
    store = open_store(paths, spec)
    dataset = prepare(spec.data, store)
    pairs = [
        ekld_set(dataset, EkldRequest(split=split, images_per_class=2, transformations=2, seed=0), store).directory
        for split in ("validation", "test")
    ]
    server = ServerConfig(dataset=dataset.directory, generator=OracleSpec(), artifact=None, stream=stream)
    if paths.results.uri:
        server = ServerConfig(**{**vars(server), "origin": store})
    context = TrialContext(
        spec=spec,
        lease_epoch=0,
        results=paths.results,
        dataset=dataset.directory,
        validation_ekld=pairs[0],
        generator=server,
    )
    return context, pairs[1]


def job(context, trial):
    return TrialJob.create(context.spec, trial, {})


def rows_of(reports):
    return [row for report in reports for row in report["rows"]]


@pytest.fixture
def whole(tmp_path):
    """The rows and test metrics of the same trial in a results directory."""
    paths = StudyPaths.at(tmp_path / "whole", "study")
    paths.create()
    context, pairs = context_of(paths)
    rows = rows_of(TrialThread(context, TRIAL))
    return timeless(rows), evaluate_on_test(context, job(context, TRIAL), pairs)["metrics"]


def test_a_trial_goes_on_on_another_machine_and_ends_with_the_same_bits(object_store, whole, monkeypatch, tmp_path):
    context, pairs = context_of(StudyPaths.at(ObjectStoreResults(object_store.uri), "study"))
    sent = pickle.dumps(context)
    first = TrialThread(context, TRIAL)
    assert rows_of([next(first), next(first)])[-1].epoch == 2
    monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path / "another"))
    arrived = pickle.loads(sent)
    assert timeless(rows_of(TrialThread(arrived, TRIAL))) == whole[0]
    assert rows_of(first) == []  # superseded, so it says and writes nothing more
    evaluating = pickle.loads(sent)
    assert evaluate_on_test(evaluating, job(evaluating, TRIAL), pairs)["metrics"] == whole[1]
    assert not evaluating.paths.trial(TRIAL).exists()  # the next task of that worker has room for its own
    paths = StudyPaths.at(ObjectStoreResults(object_store.uri), "study")
    paths.pull()
    assert timeless(read_rows(paths.rows(TRIAL))) == whole[0]
    assert json.loads(paths.test(TRIAL).read_text())["metrics"] == whole[1]
    assert json.loads((paths.trial(TRIAL) / "trial.json").read_text())["prefix_epochs"] == 1
    assert {path.name for path in (tmp_path / "another").iterdir()} == {
        path.name for path in (tmp_path / "mirrors").iterdir()
    }


def test_what_damage_took_is_trained_again_and_kept_on_the_object_store_alone(object_store, whole):
    context, pairs = context_of(StudyPaths.at(ObjectStoreResults(object_store.uri), "study"), prefix=False)
    assert timeless(rows_of(TrialThread(context, TRIAL))) == whole[0]
    (newest,) = [name for name in object_store.names("study/trials/0003") if name.startswith("epoch-000003-")]
    object_store.write(f"study/trials/0003/{newest}", b"damaged")
    completing, evaluating = (pickle.loads(pickle.dumps(context)) for _ in range(2))
    restore_epochs(completing, job(completing, TRIAL))
    assert not completing.paths.trial(TRIAL).exists()
    assert evaluate_on_test(evaluating, job(evaluating, TRIAL), pairs)["metrics"] == whole[1]
    assert not evaluating.paths.trial(TRIAL).exists()


@pytest.mark.slow
def test_an_outage_halts_the_study_in_one_line_and_the_trial_goes_on_later(object_store, whole, monkeypatch):
    monkeypatch.setenv("GITDIST_OUTAGE_S", "0.1")
    context, _ = context_of(StudyPaths.at(ObjectStoreResults(object_store.uri), "study"), prefix=False)
    sent = pickle.dumps(context)
    reports = TrialThread(context, TRIAL)
    assert rows_of([next(reports)])[-1].epoch == 1
    object_store.stop()
    (ended,) = reports
    assert (
        ended["halt"].startswith(f"the results on {object_store.uri} must be reachable") and "\n" not in ended["halt"]
    )
    object_store.start()
    assert timeless(rows_of(TrialThread(pickle.loads(sent), TRIAL))) == whole[0]


def test_what_a_driver_mends_and_carries_over_is_on_the_object_store(object_store, whole, tmp_path):
    context, _ = context_of(StudyPaths.at(ObjectStoreResults(object_store.uri), "study"))
    local = StudyPaths.at(tmp_path / "ledger", "study")
    local.create()
    ledger = Ledger.open(local, context.spec)  # any ledger: a database's is tested with whole studies
    ledger.next_trial()
    reports = TrialThread(pickle.loads(pickle.dumps(context)), FAILED)
    assert rows_of([next(reports), next(reports)])[-1].epoch == 2
    reports.close()
    object_store.write("study/trials/0000/rows.jsonl", b"")
    ledger.fail(0, "its worker was lost 3 times")
    assert ledger.retry_failed() == [(0, 1)]
    driver = StudyPaths.at(ObjectStoreResults(object_store.uri), "study")
    driver.pull()
    repair_trial(driver, FAILED)
    copy_checkpoints(Study(driver, context.spec, ledger))
    ledger.close()
    arrived = pickle.loads(pickle.dumps(context))
    assert timeless(rows_of(TrialThread(arrived, AGAIN, reported_epoch=2))) == whole[0][1:]
    seen = StudyPaths.at(ObjectStoreResults(object_store.uri), "study")
    seen.pull()
    assert timeless(read_rows(seen.rows(FAILED))) == whole[0][:2]
    assert read_rows(seen.rows(AGAIN))[:2] == read_rows(seen.rows(FAILED))  # times and all
