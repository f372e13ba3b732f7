"""What a worker reports and leaves on disk, without Tune; the stream's actors are looked for in a real Ray."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from gitdist import bounds
from gitdist.spec import OracleSpec, RandAugmentSpec, SharingSpec, StoreSpec, StreamSpec, StudySpec, TrialSpec
from gitdist.store import Store
from gitdist.stream.blocks import BlockMaker
from gitdist.stream.server import ServerConfig
from gitdist.study.files.attribution import ReusedPrefix
from gitdist.study.files.fencing import Attempt
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.results import LocalResults
from gitdist.study.files.rows import read_rows
from gitdist.study.worker.job import TrialContext, TrialJob
from gitdist.study.worker.trial_task import count_distinct_images, evaluate_on_test
from gitdist.trial.checkpoint import completed_rows
from gitdist.trial.ekld import EkldRequest, ekld_set
from tests.disks import fill, small_disk
from tests.study.worker.trial_thread import TrialThread
from tests.trial.toys import short_spec, small_digits, timeless

TRIAL = TrialId("trial", 3)


@pytest.fixture(scope="module", autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return small_digits(tmp_path_factory.mktemp("digits"), kind="exponential", largest=60, factor=0.1)


@pytest.fixture(scope="module")
def pairs(digits, tmp_path_factory):
    """Directories of the eKLD images by split."""
    store = Store(tmp_path_factory.mktemp("pairs"))
    return {
        split: ekld_set(
            digits, EkldRequest(split=split, images_per_class=2, transformations=2, seed=0), store
        ).directory
        for split in ("validation", "test")
    }


@pytest.fixture
def context_in(digits, pairs):
    def make(results, dataset=None, prefix=True, uri=None, **fields):
        trial = short_spec(**{"epochs": 3, "fraction": 0.0, "lr_milestones": (2,), **fields})
        return TrialContext(
            spec=StudySpec(name="study", trial=trial, sharing=SharingSpec(prefix=prefix), store=StoreSpec(uri=uri)),
            lease_epoch=0,
            results=LocalResults(results),
            dataset=dataset or digits.directory,
            validation_ekld=pairs["validation"],
            router="gitdist-none-router",
        )

    return make


@pytest.fixture
def context(context_in, tmp_path):
    return context_in(tmp_path)


def job(context, trial, **fields):
    return TrialJob.create(context.spec, trial, {}, **fields)


def run(context, noted=0):
    return list(TrialThread(context, TRIAL, reported_epoch=noted))


def rows_of(reports):
    return [row for report in reports for row in report["rows"]]


def interrupted(context, num_rows):
    reports = TrialThread(context, TRIAL)
    found = [next(reports) for _ in range(num_rows)]
    reports.close()
    return found


def epochs(reports):
    return [row.epoch for row in rows_of(reports)]


def test_every_row_is_reported_once_it_is_in_the_file(context):
    path = context.paths.rows(TRIAL)
    reported = []
    for report in TrialThread(context, TRIAL):
        reported += report["rows"]
        assert read_rows(path) == reported
    assert [row.epoch for row in reported] == [1, 2, 3]
    assert json.loads((path.parent / "trial.json").read_text())["number"] == 3


@pytest.mark.parametrize(("noted", "expected"), [(0, [1, 2, 3]), (2, [2, 3]), (3, [2, 3])])
def test_after_an_interruption_completed_rows_come_again_from_the_last_noted_one(context, noted, expected):
    before = interrupted(context, 2)
    after = run(context, noted)
    assert epochs(after) == expected
    assert {row.epoch: row for row in rows_of(after)}[2] == rows_of(before)[1]
    assert read_rows(context.paths.rows(TRIAL)) == completed_rows(context.paths.trial(TRIAL))


def files_of(context):
    return {file: file.read_bytes() for file in context.paths.trial(TRIAL).iterdir()}


@pytest.mark.parametrize("switch", [1, 2])  # after the prefix, and in the middle of it
def test_a_superseded_worker_writes_and_reports_nothing_more(context_in, tmp_path, switch):
    context = context_in(tmp_path, switch_epoch=switch)
    old = TrialThread(context, TRIAL)
    next(old)
    new = run(context)
    left = files_of(context)
    assert epochs(new) == [1, 2, 3]
    assert list(old) == []
    assert files_of(context) == left


def test_a_superseded_worker_that_fails_is_as_quiet(context):
    directory = context.paths.trial(TRIAL)
    mine, old = TrialThread(context, TRIAL), TrialThread(context, TRIAL)
    next(mine)
    assert mine.throw(RuntimeError("a bug"))["failed"].startswith("RuntimeError: a bug")
    (directory / "error.txt").unlink()
    next(old)
    Attempt.begin(directory, 1, context.results)
    with pytest.raises(StopIteration):
        old.throw(RuntimeError("a bug"))
    assert not (directory / "error.txt").exists()


def test_a_full_disk_ends_it_and_with_room_the_trial_goes_on_to_the_same_end(context_in, tmp_path):
    expected = run(context_in(tmp_path))
    size = sum(len(content) for content in files_of(context_in(tmp_path)).values())
    with small_disk(tmp_path / "disk", str(4 * size)) as disk:
        context = context_in(disk)
        reports = TrialThread(context, TRIAL)
        assert epochs([next(reports), next(reports)]) == [1, 2]
        full = fill(disk, leave=size // 4)
        (report,) = reports
        assert set(report) == {"disk"} and "epoch-000003" in report["disk"] and "No space" in report["disk"]
        assert not list(context.paths.trial(TRIAL).glob(".*")) and len(read_rows(context.paths.rows(TRIAL))) == 2
        full.unlink()
        assert timeless(rows_of(run(context))) == timeless(rows_of(expected))


def test_a_disk_that_is_full_from_the_start_ends_it(context_in, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        (report,) = run(context_in(disk))
        assert set(report) == {"disk"} and str(disk) in report["disk"]


def test_a_shared_store_out_of_reach_halts(context_in, tmp_path):
    context = pickle.loads(pickle.dumps(context_in(tmp_path, uri=str(tmp_path / "gone" / "place"))))
    (report,) = run(context)
    assert set(report) == {"halt"} and "gone/place" in report["halt"]


def test_what_a_trial_says_of_its_prefix_stays_whatever_it_goes_on_with(context_in, tmp_path):
    reports = TrialThread(context_in(tmp_path), TRIAL)
    directory = context_in(tmp_path).paths.trial(TRIAL)
    next(reports), next(reports)
    reports.close()
    taken = ReusedPrefix.read(directory)
    assert taken.epochs == 1 and (tmp_path / "store" / "prefix" / taken.key).exists()
    assert epochs(run(context_in(tmp_path, prefix=False))) == [1, 2, 3]
    assert ReusedPrefix.read(directory) == taken


def test_a_trial_that_never_took_a_prefix_says_so(context_in, tmp_path):
    run(context_in(tmp_path, prefix=False))
    assert ReusedPrefix.read(context_in(tmp_path).paths.trial(TRIAL)) is None


def test_trial_json_says_how_many_images_of_each_class_are_distinct(context, digits):
    """A class that repeats its images has fewer; published figures are of distinct ones."""
    next(TrialThread(context, TRIAL))
    described = json.loads((context.paths.trial(TRIAL) / "trial.json").read_text())["classes"]
    assert described["distinct"] == described["sizes"] == digits.class_sizes.tolist()
    train = digits.train
    rows = np.concatenate([np.flatnonzero(train.labels == 0), *3 * [np.flatnonzero(train.labels == 9)]])
    repeated = replace(digits)
    repeated.__dict__["train"] = replace(train, labels=train.labels[rows], source=train.source[rows])
    assert count_distinct_images(repeated) == [60, 0, 0, 0, 0, 0, 0, 0, 0, 6]


def test_a_truncated_data_set_halts_with_the_name_of_its_file(context_in, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.arrow").write_bytes(b"ARROW1\0\0 and no more")
    (report,) = run(context_in(tmp_path, tmp_path / "data"))
    assert set(report) == {"halt"} and "train.arrow" in report["halt"]


def test_a_loss_that_is_not_finite_fails_the_trial(context_in, tmp_path):
    (report,) = run(context_in(tmp_path, lr=1e30, lr_warmup_epochs=0))
    assert set(report) == {"failed"} and "in epoch 1, step" in report["failed"]


def test_a_bug_fails_the_trial_and_its_traceback_is_kept(context):
    directory = context.paths.trial(TRIAL)
    (directory / "trial.json").mkdir(parents=True)
    (report,) = run(context)
    assert report["failed"].startswith("OSError: ") and report["failed"].endswith(f"{directory}/error.txt)")
    assert "in run_trial" in (directory / "error.txt").read_text()


@pytest.mark.ray
def test_a_stream_that_is_gone_halts_and_is_no_trials_failure(ray_cluster, context_in, tmp_path):
    (report,) = run(context_in(tmp_path, fraction=0.5))
    assert set(report) == {"halt"} and "gitdist-none-router" in report["halt"]


def test_a_damaged_last_checkpoint_is_trained_again_before_the_test(context_in, pairs, tmp_path):
    results = []
    for name in ("whole", "damaged"):
        context = context_in(tmp_path / name)
        run(context)
        if name == "damaged":
            newest = max(context.paths.trial(TRIAL).glob("epoch-*"))
            newest.write_bytes(newest.read_bytes()[:-1])
        results.append(evaluate_on_test(context, job(context, TRIAL), pairs["test"]))
        assert len(read_rows(context.paths.rows(TRIAL))) == 3
    for result in results:
        del result["evaluating_s"], result["evaluated_at"]
    assert results[0] == results[1]


def test_test_metrics_are_measured_once_and_again_where_their_file_is_damaged(context, pairs):
    run(context)
    first = evaluate_on_test(context, job(context, TRIAL), pairs["test"])
    assert evaluate_on_test(context, job(context, TRIAL), pairs["test"]) == first
    place = context.paths.trial(TRIAL) / "test.json"
    place.write_bytes(place.read_bytes()[:40])
    again = evaluate_on_test(context, job(context, TRIAL), pairs["test"])
    assert again["metrics"] == first["metrics"]
    assert json.loads(place.read_text()) == again


@pytest.mark.parametrize("per_seed", [True, False])
def test_trials_of_one_seed_read_the_same_draws_and_of_others_different_ones(
    per_seed, context_in, digits, tmp_path, monkeypatch
):
    draws = [{}, {}, {}]
    make = BlockMaker.make

    def noted(maker, key):
        block = make(maker, key)
        reading[key.class_index, key.index] = block.images
        return block

    monkeypatch.setattr(BlockMaker, "make", noted)
    for number, (seed, fraction) in enumerate([(1, 0.5), (1, 0.9), (2, 0.5)]):
        reading = draws[number]
        context = context_in(tmp_path / str(number), prefix=False, epochs=2, seed=seed, fraction=fraction)
        stream = StreamSpec(block_size=16, per_seed=per_seed)
        context = replace(
            context,
            spec=context.spec.model_copy(update={"stream": stream}),
            generator=ServerConfig(dataset=digits.directory, generator=OracleSpec(), artifact=None, stream=stream),
            router=None,
        )
        assert len(rows_of(run(context))) == 2
    one, same, other = draws
    common = [place for place in one if place in same and place in other]
    assert common
    for place in common:
        np.testing.assert_array_equal(one[place], same[place])
        assert np.array_equal(one[place], other[place]) != per_seed


REPEAT = TrialId("trial", 9)


def repeat(context, noted=0):
    return list(TrialThread(context, REPEAT, reported_epoch=noted, links={"repeat_of": TRIAL.number}))


@pytest.mark.parametrize("switch", [0, 2])
def test_a_repeat_takes_the_result_of_its_original_without_training(context_in, tmp_path, switch):
    context = context_in(tmp_path, switch_epoch=switch, fraction=0.5)  # there is no such stream
    original = context_in(tmp_path, switch_epoch=switch)
    run(original)
    rows, directory = read_rows(context.paths.rows(TRIAL)), context.paths.trial(REPEAT)
    killed = TrialThread(context, REPEAT, reported_epoch=0, links={"repeat_of": TRIAL.number})
    next(killed)
    killed.close()
    for noted, expected in ((0, rows), (2, rows[1:])):
        assert rows_of(repeat(context, noted)) == expected
        assert read_rows(context.paths.rows(REPEAT)) == completed_rows(directory) == rows
    assert json.loads((directory / "trial.json").read_text())["repeat_of"] == TRIAL.number


def test_a_repeat_trains_what_the_files_of_its_original_lack(context):
    whole = timeless(rows_of(run(context)))
    newest = max(context.paths.trial(TRIAL).glob("epoch-000003-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert timeless(rows_of(repeat(context))) == whole
    for file in context.paths.trial(TRIAL).glob("*.pt"):
        file.unlink()
    other = list(TrialThread(context, TrialId("trial", 10), reported_epoch=0, links={"repeat_of": TRIAL.number}))
    assert timeless(rows_of(other)) == whole


def test_a_repeat_that_is_trained_on_for_its_test_stays_a_repeat(context, pairs):
    run(context)
    repeat(context)
    for file in context.paths.trial(REPEAT).glob("*.pt"):
        file.unlink()
    found = evaluate_on_test(context, job(context, REPEAT, links={"repeat_of": TRIAL.number}), pairs["test"])
    assert found["metrics"] == evaluate_on_test(context, job(context, TRIAL), pairs["test"])["metrics"]
    assert json.loads((context.paths.trial(REPEAT) / "trial.json").read_text())["repeat_of"] == TRIAL.number
    assert read_rows(context.paths.rows(REPEAT)) == read_rows(context.paths.rows(TRIAL))


def test_the_baseline_is_the_trial_of_the_study_without_augmentation() -> None:
    study = StudySpec(name="study", trial=TrialSpec(fraction=0.5, sampler="square-root"))
    job = TrialJob.create(study, BASELINE, {})
    assert job.spec == study.trial.model_copy(update={"fraction": 0.0})


def test_transformations_that_are_not_stored_are_drawn_by_the_trials_generator(tmp_path, monkeypatch):
    plain = small_digits(tmp_path / "plain", nuisance="none", kind="none", largest=20)
    config = ServerConfig(
        dataset=plain.directory,
        generator=RandAugmentSpec(),
        artifact=None,
        stream=StreamSpec(precision="float32"),
        device="cpu",
    )
    request = EkldRequest(split="test", images_per_class=2, transformations=3, seed=0, under="generator")
    stored = ekld_set(plain, request, Store(tmp_path / "stored"), config.build_maker().transform)
    monkeypatch.setattr(bounds, "EKLD_BYTES", 0)
    directory = ekld_set(plain, request, Store(tmp_path / "drawn"), config.build_maker().transform).directory
    context = TrialContext(
        spec=StudySpec(name="study", generator=RandAugmentSpec()),
        lease_epoch=0,
        results=LocalResults(tmp_path / "results"),
        dataset=plain.directory,
        validation_ekld=directory,
        generator=config,
    )

    drawn = pickle.loads(pickle.dumps(context)).open_ekld(directory)

    assert not isinstance(drawn.transformed, np.ndarray)
    assert np.array_equal(np.concatenate(list(drawn.transformed_parts())), stored.transformed)
