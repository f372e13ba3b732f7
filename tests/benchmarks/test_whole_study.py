import pytest
from whole_study import Original, WholeStudy, Work, busy_s, call, check_repeatable, differing_rows, figures, work_ratio

from gitdist.errors import SpecError, StudyError
from gitdist.spec import StudySpec


@pytest.mark.parametrize(
    ("trials", "prefix_s", "generation_s", "expected"),
    [
        (1, 0.8, 0.3, 1.0),  # one trial shares with nobody
        (8, 0.0, 0.0, 1.0),  # nothing to share
        (8, 1.0, 0.0, 8.0),  # everything is shared
        (8, 0.8, 0.5, 8 * (1 + 0.5) / (0.8 + 0.2 * 8 + 0.5)),
    ],
)
def test_the_work_that_sharing_leaves(trials, prefix_s, generation_s, expected):
    def work(prefixes: int, images: int) -> dict[str, Work]:
        return {
            "prefixes": Work(seconds=trials * prefix_s, times=prefixes),
            "rests": Work(seconds=trials * (1 - prefix_s), times=2 * trials),
            "generation": Work(seconds=trials * generation_s, times=images),
        }

    assert work_ratio(work(8 * trials, 64 * trials), work(8, 64)) == pytest.approx(expected)


def test_work_that_is_not_done_costs_nothing():
    alone = {"rests": Work(seconds=4.0, times=2), "generation": Work(seconds=0.0, times=0)}
    assert work_ratio(alone, {**alone, "rests": Work(seconds=9.0, times=1)}) == 2


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], 0),
        ([(2, 4), (3, 5)], 3),  # two workers at once
        ([(3, 5), (2, 9)], 7),  # one within the other, in any order
        ([(-5, 1), (9, 20)], 2),  # what is outside the study does not count
        ([(-5, -1), (11, 12)], 0),
    ],
)
def test_busy_time_is_the_union_within_the_window(intervals, expected):
    assert busy_s(intervals, (0, 10)) == expected


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
ORIGINAL = Original(wall_s=60.0, generated_images=512, epochs_trained=4)


def study_of(rows: dict, generated: int, generating_s: float, peak_bytes: int = 0) -> WholeStudy:
    summary = {"generated_images": generated, "generating_s": generating_s, "evaluating_s": 2.5}
    trials = {name: {"switch_epoch": 1} for name in rows}
    return WholeStudy(
        window=(90.0, 120.0), peak_bytes=peak_bytes, summary=summary, trials=trials, rows=rows, tests=[(113.0, 114.0)]
    )


@pytest.fixture
def study() -> WholeStudy:
    """Two trials that share their first epoch and their draws."""
    return study_of(SHARED, 64, 3.0)


@pytest.fixture
def alone() -> WholeStudy:
    """The same two trials without sharing."""
    return study_of(ALONE, 128, 0.0)


def test_a_shared_epoch_was_trained_once(study):
    assert study.epochs_trained == 3
    assert study.wall_s == 30
    busy = 2.5 + 4.5 + 1.0  # the epochs that ended at 100, at 110 and 112, and the test
    assert study.fixed_s == 30 - busy


def test_times_are_no_results(study):
    assert study.results["0001"][1] == {"epoch": 2, "val/balanced_accuracy": 0.5, "train/loss": 0.5}


def test_work_is_counted_once_and_waiting_is_none(study, alone):
    assert {kind: (each.seconds, each.times) for kind, each in study.work.items()} == {
        "prefixes": (1.0, 1),
        "rests": (2.0, 2),
        "generation": (3.0, 64),
        "evaluation": (2.5, 4),
    }
    # A trial that makes its draws waits for nothing else.
    assert [(each.seconds, each.times) for each in alone.work.values()] == [(2.0, 2), (2.0, 2), (2.0, 128), (2.5, 5)]


def test_every_row_that_is_not_the_same_counts(study):
    same = study.results
    assert differing_rows(same, same) == 0
    assert differing_rows(same, {**same, "0001": [{"epoch": 1, "train/loss": 0.6}, same["0001"][1]]}) == 1
    assert differing_rows(same, {**same, "0001": same["0001"][:1]}) == 1
    assert differing_rows(same, {"0000": same["0000"]}) == 2


def figures_by_name(on: WholeStudy, *off: WholeStudy, on_cpu: bool = True) -> dict:
    count = len(off)
    ways = {"one": [on] * count, "on": [on] * count, "off": off, "original": [ORIGINAL] * count}
    return {figure.name: figure for figure in figures(ways, 2, on_cpu)}


def test_rows_that_differ_in_any_repeat_are_an_error_on_a_cpu(study, alone):
    wrong = study_of({**ALONE, "0001": ALONE["0001"][:1]}, 128, 0.0)
    for on_cpu, met in ((True, False), (False, None)):
        found = figures_by_name(study, alone, wrong, alone, on_cpu=on_cpu)["rows that differ, off / on"]
        assert (found.median, found.met, found.required) == (1, met, True)


def test_a_study_is_compared_with_the_arithmetic_limit(study, alone):
    found = figures_by_name(study, alone)
    limit = 8.5 / (1 + 2 + 1 + 2.5 * 4 / 5)
    assert found["off / on, by arithmetic"].median == pytest.approx(limit)
    assert found["share of the arithmetic limit"].median == pytest.approx(1 / limit)
    assert found["original way / on"].median == 2 and found["generated, 2 trials / 1 trial"].met
    assert found["evaluation on test / study"].median == pytest.approx(1 / 30)


def test_memory_that_could_not_be_sampled_is_left_out(study, alone):
    assert "peak memory, 2 trials" not in figures_by_name(study, alone)
    assert figures_by_name(study_of(SHARED, 64, 3.0, 2**30), alone)["peak memory, 2 trials"].median == 1


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"algorithm": "tpe"}, ["'tpe'", "search.lag"]),
        ({"algorithm": "random", "pruner": {"kind": "median", "min_epochs": 1}}, ["'median'", "search.pruner.kind"]),
        ({"algorithm": "grid", "space": {"threshold": {"choice": [5, 9]}}}, ["4 points", "has 2", "--trials 2"]),
    ],
)
def test_trials_that_depend_on_timing_are_refused(search, words):
    with pytest.raises(SpecError) as refused:
        check_repeatable(StudySpec(name="a", search=search), 4)
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)


def test_trials_that_every_run_has_are_measured():
    for search in ({"algorithm": "random"}, {"algorithm": "tpe", "lag": 2}):
        check_repeatable(StudySpec(name="a", search=search), 16)


def test_memory_is_that_of_a_process_and_its_children():
    hold = "import subprocess, sys; x = bytearray(60 << 20); sys.exit(subprocess.call([sys.executable, '-c', INNER]))"
    inner = "import time; x = bytearray(60 << 20); time.sleep(2.5)"
    _, peak_bytes = call("-c", hold.replace("INNER", repr(inner)))
    assert 120 << 20 < peak_bytes < 300 << 20


def test_a_failed_command_is_an_error_with_its_last_words():
    with pytest.raises(StudyError, match="failed: .*no such thing"):
        call("-c", "raise SystemExit('there is no such thing')")
