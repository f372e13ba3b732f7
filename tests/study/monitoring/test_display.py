import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from gitdist.generator.base import TrainingStep
from gitdist.spec import StudySpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import open_rows
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.monitoring.display import LiveDisplay, LogDisplay, open_display, pause_between_lines
from gitdist.study.monitoring.picture import draw, phase_line, progress_line
from gitdist.study.monitoring.progress import Phase, Snapshot
from gitdist.study.status import read_status
from gitdist.study.study import Study
from gitdist.study.trial_status import TrialStatus
from tests.epoch_rows import epoch_row

SPACE = {"threshold": {"int": [10, 100]}, "fraction": {"float": [0.1, 0.9]}}
METHODS = {"CE+DRS [/few]": {}, "a method with a very long name, indeed longer than any sensible column is": {}}
WIDE = {
    **SPACE,
    "sampler": {"choice": ["class-balanced", "effective-number"]},
    "label_smoothing": {"float": [0.0, 0.2]},
    "weight_decay": {"float": [1.0e-5, 1.0e-3], "log": True},
    "lr_warmup_epochs": {"int": [0, 5]},
    "randaugment_magnitude": {"int": [1, 30]},
}
PHASE = Phase(
    name="training the generator", done=400, total=2000, unit="steps", rate=13.0, rate_unit="steps", left_s=123
)
STREAM = (
    "1,234 images/s, 310 of 2,048 blocks in the window, servers generate 87 % of the time, trials waited 3.4 s in total"
)


def spec_of(total: int, **search: Any) -> StudySpec:
    methods = search.pop("methods", {})
    values = {"total": total, "algorithm": "random", "space": SPACE, **search}
    return StudySpec.model_validate({"name": "study", "trial": {"epochs": 20}, "methods": methods, "search": values})


@pytest.fixture
def open_study(tmp_path: Path) -> Iterator[Any]:
    ledgers = []

    def make(spec: StudySpec) -> Study:
        paths = StudyPaths.at(tmp_path, spec.name)
        paths.create()
        ledgers.append(Ledger.open(paths, spec))
        return Study(paths, spec, ledgers[-1])

    yield make
    for ledger in ledgers:
        ledger.close()


def snapshot_of(spec: StudySpec, num_started: int, **facts: Any) -> Snapshot:
    """A study in which the last four trials run, one in ten failed, and the accuracy of the others increases."""
    search, trials = spec.search, []
    for number in range(num_started):
        values = {name: dimension.extremes[-1] for name, dimension in search.space.items()}
        values |= {"fraction": 0.123456789 + number / 1000} if "fraction" in values else {}
        metrics = {name: 0.5 + number / 1000 for name in search.objectives} | {"val/ekld": 0.0123}
        state = "running" if number >= num_started - 4 else "failed" if number % 10 == 3 else "finished"
        status = TrialStatus(
            trial=str(number),
            state=state,
            epoch=7 if state == "running" else 20,
            epochs=20,
            params=values,
            metrics=metrics,
        )
        trials.append(status)
    if num_started:
        metrics = {"val/balanced_accuracy": 0.4}
        trials.insert(
            0, TrialStatus(trial="baseline", state="finished", epoch=20, epochs=20, params={}, metrics=metrics)
        )
    return Snapshot(search=search, trials=trials, total=search.total, left_s=840.0, **facts)


def shown(snapshot: Snapshot, width: int, height: int) -> list[str]:
    """The lines on a terminal of that size, which need not be wrapped or cut there."""
    console = Console(file=io.StringIO(), width=width, height=height)
    drawn = draw(snapshot, width, height)
    console.print(*drawn, sep="\n", highlight=False)
    lines = console.file.getvalue().removesuffix("\n").split("\n")
    assert len(lines) <= height and [line.rstrip() for line in lines] == [line.plain.rstrip() for line in drawn]
    assert all(cell_len(line.plain) <= width for line in drawn) and "…" not in "".join(lines)
    return lines


def states(lines: list[str]) -> tuple[list[str], dict[str, int]]:
    """The trials that have an entry, and the counts of the others."""
    entries = [match[2] for line in lines if (match := re.match(r"(trial )?(\d+)(: | +\d+/)", line))]
    counted = re.search(
        r"(not shown: )?((\d+ (running|finished|failed|interrupted|queued)(, )?)+)$",
        " ".join(line.strip() for line in lines[-6:]),
    )
    counts = re.findall(r"(\d+) (running|finished|failed|interrupted|queued)", counted[0] if counted else "")
    return entries, {state: int(count) for count, state in counts}


@pytest.mark.parametrize("size", [(80, 24), (60, 24), (120, 40), (40, 20)], ids=str)
@pytest.mark.parametrize("space", [SPACE, WIDE], ids=["two", "many"])
@pytest.mark.parametrize("num_started", [0, 1, 12, 30, 300])
def test_each_trial_is_shown_or_counted(num_started: int, space: dict[str, Any], size: tuple[int, int]) -> None:
    spec = spec_of(num_started + 2, space=space)
    snapshot = snapshot_of(spec, num_started, phase=PHASE)
    lines = shown(snapshot, *size)
    entries, counts = states(lines)
    assert len(set(entries)) == len(entries) and len(entries) + sum(counts.values()) == num_started + 2
    assert counts.get("queued") == 2
    running = [trial.trial for trial in snapshot.trials if trial.state == "running"]
    assert len([number for number in entries if number in running]) + counts.get("running", 0) == len(running)
    if counts.get("running"):
        assert set(entries) <= set(running)
    ended = [number for number in entries if number not in running]
    assert ended == sorted(ended, key=int, reverse=True)  # the best first
    for trial in snapshot.trials:
        if trial.trial in entries:  # with its value and searched values, whole
            assert f"{trial.metrics['val/balanced_accuracy']:.4f}" in " ".join(lines)
            assert f"{trial.params['fraction']:.4g}" in " ".join(lines)


@pytest.mark.parametrize("num_started", [0, 1, 30, 300])
def test_even_a_tiny_terminal_shows_how_far_the_study_is(num_started: int) -> None:
    snapshot = snapshot_of(spec_of(300, space=WIDE), num_started, phase=PHASE, stream=STREAM)
    for width, height in ((20, 10), (10, 4), (2, 1)):
        lines = shown(snapshot, width, height)
        assert width < 20 or "of 300 trials" in " ".join(lines)


def test_a_study_of_two_objectives_shows_its_front_and_broken_constraints(open_study: Any) -> None:
    spec = spec_of(4, objective=["balanced_accuracy", "ekld"], constraints=["few_accuracy >= 0.5"])
    study = open_study(spec)
    with open_display(Console(file=io.StringIO(), force_terminal=True)) as display:
        display.show_study(study)
        for accuracy, ekld, few in ((0.9, 0.3, 0.6), (0.8, 0.1, 0.6), (0.7, 0.2, 0.6), (0.95, 0.05, 0.4)):
            run_trial(study, display, {"val/balanced_accuracy": accuracy, "val/ekld": ekld, "val/few_accuracy": few})
        snapshot = display.snapshot()
    assert progress_line(snapshot).startswith("4 of 4 trials, Pareto front: trials 0, 1")
    lines = shown(snapshot, 80, 24)
    assert [line.split()[0] for line in lines[-4:]] == ["0", "1", "2", "3"]
    assert [line.split()[-1] for line in lines[-4:]] == ["front", "front", "finished", "infeasible"]


def run_trial(study: Study, display: Any, metrics: dict[str, float], num_epochs: int = 20) -> None:
    record = study.ledger.next_trial()
    trial = TrialId("trial", record.number)
    display.trial_started(trial, record.params)
    for epoch in range(1, num_epochs + 1):
        display.epoch_ended(trial, epoch_row(epoch, metrics=metrics, train_s=1.5, evaluating_s=0.5))
    if num_epochs == study.num_epochs(record.params):
        study.ledger.finish(record.number, metrics)
        display.trial_ended(trial, Outcome("finished", num_epochs))


def test_replicates_and_methods_are_shown_whole(open_study: Any) -> None:
    space = {"method": {"choice": list(METHODS)}}
    spec = spec_of(2, space=space, replicates=2, methods=METHODS, algorithm="grid")
    study = open_study(spec)
    with open_display(Console(file=io.StringIO(), force_terminal=True)) as display:
        display.show_study(study)
        for accuracy in (0.5, 0.7, 0.8, 0.8):
            run_trial(study, display, {"val/balanced_accuracy": accuracy})
        snapshot = display.snapshot()
    assert progress_line(snapshot) == "4 of 4 trials, best mean 0.8000 (trials 2, 3)"
    lines = [line.strip() for line in shown(snapshot, 80, 24)]
    for method in METHODS:
        assert method in " ".join(lines)
    shown(snapshot, 30, 12)


def test_a_resumed_study_counts_earlier_trials_and_estimates_as_status_does(open_study: Any) -> None:
    study = open_study(spec_of(3))
    for number, num_epochs in enumerate((20, 5)):
        assert study.ledger.next_trial().number == number
        directory = study.paths.trial(TrialId("trial", number))
        directory.mkdir(parents=True)
        metrics = {"val/balanced_accuracy": 0.75}
        rows = [epoch_row(epoch, metrics=metrics, train_s=30.0) for epoch in range(1, num_epochs + 1)]
        open_rows(directory / "rows.jsonl", rows).close()
    study.ledger.finish(0, metrics)
    display = LogDisplay(Console(file=io.StringIO()))
    display.show_study(study)
    snapshot, status = display.snapshot(), read_status(study)
    assert snapshot.trials == tuple(status.trials)
    assert snapshot.left_s == pytest.approx(status.time_left_s, abs=1.0) == (20 + 15 + 20) * 30.0
    assert progress_line(snapshot).startswith("1 of 3 trials, best 0.7500 (trial 0), 2")
    assert states(shown(snapshot, 80, 24)) == (["0"], {"interrupted": 1, "queued": 1})


def test_the_training_of_any_generator_is_shown_with_speed_and_time_left() -> None:
    for losses, detail in (({"gan": 1.0, "image": 0.5}, "image 0.500"), ({"x": 2.0}, "x 2.000"), ({}, "")):
        for terminal in (True, False):
            console = Console(file=io.StringIO(), width=140, force_terminal=terminal)
            with open_display(console) as display:
                for step in (3, 6):
                    display.training_step(TrainingStep(step=step, total=9, losses=losses, elapsed_s=0.0))
                    phase = display.phase
                    if terminal:
                        display._live.refresh()
                assert phase.rate > 0 and phase.left_s > 0
            assert re.search(rf"3 of 9 steps.*{detail}", console.file.getvalue())
    assert phase_line(PHASE) == "training the generator: 400 of 2,000 steps, 13 steps/s, 2 min left"


def test_a_phase_has_a_speed_once_a_unit_is_done_and_an_expected_end_before() -> None:
    display = LogDisplay(Console(file=io.StringIO(), width=140))
    for num_done in (0, 1):
        display.progress("test", num_done, 2, unit="trials", rate_unit="images", each=100, expected_s=1000.0)
        phase = display.phase
        assert (phase.rate is None) == (num_done == 0)
        assert 0 <= phase.left_s <= 1000.0
    assert phase.rate == pytest.approx(100 / phase.left_s)
    display.progress("test", 2, 2, unit="trials")
    assert display.phase is None
    assert len(display._console.file.getvalue().splitlines()) == 2  # the begin and the end


def test_a_log_has_lines_for_starts_and_ends_however_many_epochs_there_are(open_study: Any) -> None:
    study, lengths = open_study(spec_of(6)), []
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    with open_display(console) as display:
        assert isinstance(display, LogDisplay)
        display.show_study(study)
        for _ in range(3):
            run_trial(study, display, {"val/balanced_accuracy": 0.75})
            lengths.append(len(console.file.getvalue().splitlines()))
        run_trial(study, display, {}, num_epochs=3)
        record = study.ledger.next_trial()
        trial = TrialId("trial", record.number)
        display.trial_started(trial, record.params)
        display.trial_waits(trial), display.trial_waits(trial)
        study.ledger.fail(record.number, "loss became nan")
        display.trial_ended(trial, Outcome("failed", 2, "loss became nan"))
    lines = console.file.getvalue().splitlines()
    assert lengths == [3, 6, 9] and len(lines) == 9 + 1 + 4
    assert re.fullmatch(r"..:..:.. trial 0 started: threshold \d+, fraction 0\.\d+", lines[0])
    assert lines[1].endswith("trial 0 finished: balanced accuracy 0.7500")
    assert re.search(r"1 of 6 trials, best 0.7500 \(trial 0\), [\d.]+ (s|min) left$", lines[2])
    assert lines[-3].endswith("trial 4 waits for its first stage, which another trial trains")
    assert lines[-2].endswith("trial 4 failed: loss became nan")
    assert "4 of 6 trials" in lines[-1] and lines[-1].endswith("; running: 3 (epoch 3/20)")


def test_before_the_first_epoch_the_time_left_is_that_of_the_first_estimate(open_study: Any) -> None:
    study = open_study(spec_of(1))
    display = LogDisplay(Console(file=io.StringIO()))
    display.expect(1000.0)
    display.show_study(study)
    assert 0 < display.snapshot().left_s <= 1000.0
    run_trial(study, display, {}, num_epochs=1)
    assert display.snapshot().left_s == pytest.approx(19 * 2.0, abs=1.0)


def test_a_log_of_any_length_stays_readable() -> None:
    elapsed_s, num_lines = 0.0, 0
    while elapsed_s < 30 * 86400:
        elapsed_s += pause_between_lines(elapsed_s)
        num_lines += 1
    assert pause_between_lines(0.0) == 60.0 and num_lines < 5000


def test_the_prefix_that_trials_share_is_a_phase(open_study: Any) -> None:
    spec = spec_of(2)
    study = open_study(spec.model_copy(update={"trial": spec.trial.model_copy(update={"switch_epoch": 10})}))
    display = LogDisplay(Console(file=io.StringIO()))
    display.show_study(study)
    record = study.ledger.next_trial()
    trial = TrialId("trial", record.number)
    display.trial_started(BASELINE, {})
    display.trial_started(trial, record.params)
    for epoch in range(1, 11):
        display.epoch_ended(trial, epoch_row(epoch, train_s=1.5, evaluating_s=0.5))
        phase = display.snapshot().phase  # the baseline waits
        assert phase is None if epoch == 10 else (phase.done, phase.left_s) == (epoch, 2.0 * (10 - epoch))
    for epoch in range(1, 11):
        display.epoch_ended(BASELINE, epoch_row(epoch, train_s=1.5, evaluating_s=0.5, trained_by="other"))
    assert [trial.shared for trial in display.snapshot().trials] == [10, 0]


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_has_the_picture_and_its_log_above(open_study: Any, environment: dict[str, str]) -> None:
    study = open_study(spec_of(2))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ=environment)
    with open_display(console) as display:
        assert isinstance(display, LogDisplay if "TERM" in environment else LiveDisplay)
        display.log("2 trials at once")
        display.show_study(study)
        display.stream(STREAM)
        run_trial(study, display, {"val/balanced_accuracy": 0.75})
        display.trial_ended(BASELINE, Outcome("failed", 2, "loss [/b] became nan"))
        with display.paused():
            pass
    text = console.file.getvalue()
    for fact in ("2 trials at once", "1 of 2 trials, best 0.7500 (trial 0)", "baseline failed: loss [/b] became nan"):
        assert fact in text
    assert ("\x1b[3" in text) == (not environment)
