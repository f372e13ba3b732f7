import sys

import pytest

from gitdist.bench.memory import run_watched
from gitdist.bench.scale import measurement as scale_measurement
from gitdist.bench.study import Comparison, Original, differing_rows
from gitdist.bench.study import measurement as study_measurement
from gitdist.bench.whole import WholeStudy, check_repeatable, powers_of_two, remove_leftovers, with_total
from gitdist.disk import locked
from gitdist.errors import SpecError, StudyError
from gitdist.spec import StudySpec


def row(epoch: int, ended_at: float, loss: float = 0.5) -> dict[str, float]:
    return {
        "epoch": epoch,
        "val/balanced_accuracy": 0.5,
        "train/loss": loss,
        "train_s": 2.0,
        "waiting_s": 1.0,
        "evaluating_s": 0.5,
        "ended_at": ended_at,
    }


SHARED = {"0000": [row(1, 100.0), row(2, 110.0)], "0001": [row(1, 100.0), row(2, 112.0)]}
ALONE = {name: [{**each, "generated": 64 * (each["epoch"] - 1)} for each in rows] for name, rows in SHARED.items()}
ALONE["0001"][0]["ended_at"] = 101.0


def study_of(rows: dict, generated: int, generating_s: float, peak: int | None = None) -> WholeStudy:
    summary = {"generated_images": generated, "generating_s": generating_s, "evaluating_s": 2.5}
    trials = {name: {"switch_epoch": 1} for name in rows}
    return WholeStudy(
        window=(90.0, 120.0), peak_bytes=peak, summary=summary, trials=trials, rows=rows, tests=[(113.0, 114.0)]
    )


@pytest.fixture
def study() -> WholeStudy:
    """Two trials that share their first epoch and their draws."""
    return study_of(SHARED, 64, 3.0)


@pytest.fixture
def alone() -> WholeStudy:
    """The same two trials, each by itself."""
    return study_of(ALONE, 128, 0.0)


def test_a_shared_epoch_was_trained_once(study):
    assert study.epochs_trained == 3
    assert study.wall_s == 30
    assert sorted(set(study.intervals)) == [(97.5, 100.0), (107.5, 110.0), (109.5, 112.0), (113.0, 114.0)]


def test_times_are_no_results(study):
    assert study.results["0001"][1] == {"epoch": 2, "val/balanced_accuracy": 0.5, "train/loss": 0.5}


def test_work_is_counted_once_and_waiting_is_none(study, alone):
    assert {kind: (each.seconds, each.times) for kind, each in study.work.items()} == {
        "prefixes": (1.0, 1),
        "rests": (2.0, 2),
        "generation": (3.0, 64),
        "evaluation": (2.5, 4),
    }
    # Where a trial makes its draws itself, that is what it waits for.
    assert [(each.seconds, each.times) for each in alone.work.values()] == [(2.0, 2), (2.0, 2), (2.0, 128), (2.5, 5)]


def test_every_row_that_is_not_the_same_counts(study):
    same = study.results
    assert differing_rows(same, same) == 0
    assert differing_rows(same, {**same, "0001": [{"epoch": 1, "train/loss": 0.6}, same["0001"][1]]}) == 1
    assert differing_rows(same, {**same, "0001": same["0001"][:1]}) == 1
    assert differing_rows(same, {"0000": same["0000"]}) == 2


def test_rows_that_differ_in_any_repeat_break_the_comparison(study, alone):
    original = Original(wall_s=60.0, generated_images=512, epochs_trained=4)
    wrong = study_of({**ALONE, "0001": ALONE["0001"][:1]}, 128, 0.0)
    repeats = [Comparison(on=study, off=off, original=original) for off in (alone, wrong, alone)]
    for on_processor, met in ((True, False), (False, None)):
        found = study_measurement(repeats, 2, on_processor)
        rows = next(each for each in found.verdicts if each.binding)
        assert (rows.spread.median, rows.met) == (1, met)
    assert found.verdicts[0].arithmetic == pytest.approx(8.5 / (1 + 2 + 1 + 2.5 * 4 / 5))


def test_memory_that_could_not_be_sampled_meets_no_target(study, alone):
    original = Original(wall_s=60.0, generated_images=512, epochs_trained=4)
    for peak, num_verdicts, notes in ((None, 3, 1), (2**30, 4, 0)):
        on = study_of(SHARED, 64, 3.0, peak)
        found = study_measurement([Comparison(on=on, off=alone, original=original)], 2, True)
        assert (len(found.verdicts), len(found.notes)) == (num_verdicts, notes)
        assert len(scale_measurement({1: [on]}).figures) == (3 if peak is None else 4)


def test_scale_tells_what_more_trials_generate(study, alone):
    growth = scale_measurement({1: [study], 2: [alone]}).verdicts[-1]
    assert (growth.name, growth.spread.median, growth.met) == ("generated with 2 trials / with 1", 2, False)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"algorithm": "tpe"}, ["'tpe' without search.lag", "search.algorithm=random"]),
        (
            {"algorithm": "random", "pruner": {"kind": "median", "min_epochs": 1}},
            ["'median'", "search.pruner.kind=none"],
        ),
        ({"algorithm": "grid", "space": {"threshold": {"choice": [5, 9]}}}, ["4 trials", "2 points", "--trials 2"]),
    ],
)
def test_trials_that_another_run_would_not_have_are_refused(search, words):
    with pytest.raises(SpecError) as refused:
        check_repeatable(StudySpec(name="a", search=search), 4)
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)


def test_trials_that_every_run_has_are_measured():
    for search in ({"algorithm": "random"}, {"algorithm": "tpe", "lag": 2}):
        check_repeatable(StudySpec(name="a", search=search), 16)


def test_fewer_trials_try_fewer_points_first():
    points = [{"threshold": 5}, {"threshold": 9}]
    search = {"total": 8, "space": {"threshold": {"int": [5, 9]}}, "try_first": points}
    cut = with_total(StudySpec(name="a", search=search), 1).search
    assert (cut.total, cut.try_first) == (1, (points[0],))


def test_what_a_killed_benchmark_left_goes_and_a_living_one_stays(tmp_path):
    for name in ("whole-dead", "whole-alive", "generator"):
        (tmp_path / name / "store").mkdir(parents=True)
    with locked(tmp_path / "whole-alive" / "lock"):
        remove_leftovers(tmp_path)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["generator", "whole-alive"]


def test_powers_of_two_up_to_a_number():
    assert [powers_of_two(most) for most in (1, 3, 16)] == [[1], [1, 2], [1, 2, 4, 8, 16]]


def test_memory_is_that_of_a_process_and_its_children():
    hold = "import subprocess, sys; x = bytearray(60 << 20); sys.exit(subprocess.call([sys.executable, '-c', INNER]))"
    inner = "import time; x = bytearray(60 << 20); time.sleep(2.5)"
    finished = run_watched([sys.executable, "-c", hold.replace("INNER", repr(inner))], {})
    assert 120 << 20 < finished.peak_bytes < 300 << 20


def test_a_failed_command_is_told_with_its_last_words():
    with pytest.raises(StudyError, match="failed: .*no such thing"):
        run_watched([sys.executable, "-c", "raise SystemExit('there is no such thing')"], {})
