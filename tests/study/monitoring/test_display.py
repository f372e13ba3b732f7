import io

from rich.console import Console

from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.monitoring.display import LiveDisplay, LogDisplay, open_display
from tests.epoch_rows import epoch_row

ROW = epoch_row(2, metrics={"val/balanced_accuracy": 0.75, "val/ekld": 0.125}, waiting_s=1.5)


def show(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140)
    with open_display(console, 5, ("threshold", "fraction", "method")) as display:
        assert isinstance(display, LiveDisplay if terminal else LogDisplay)
        display.log("2 trials at once")
        display.progress("training the generator", 400, 400, "image 0.1")
        display.trial_started(BASELINE, {})
        display.trial_started(TrialId("trial", 3), {"threshold": None, "fraction": 0.25, "method": "DRS [/few]"})
        display.trial_waits(TrialId("trial", 3))
        display.trial_waits(TrialId("trial", 3))
        display.epoch_ended(TrialId("trial", 3), ROW)
        display.trial_ended(TrialId("trial", 3), Outcome("failed", 2, "loss became nan"))
    return console.file.getvalue()


def test_the_training_of_any_generator_is_shown():
    for losses, shown in (({"gan": 1.0, "image": 0.5}, "3 of 9 image 0.500"), ({"x": 2.0}, "x 2.000"), ({}, "3 of 9")):
        display = LogDisplay(Console(file=io.StringIO(), width=140), 5)
        display.training_step(TrainingStep(step=3, total=9, losses=losses, elapsed_s=0.0))
        assert display._console.file.getvalue().strip().endswith(shown)


def test_a_log_has_one_line_an_event():
    lines = show(terminal=False).splitlines()
    assert len(lines) == 7
    assert lines[3].endswith("trial 3 started threshold=all fraction=0.25 method=DRS [/few]")
    assert lines[4].endswith("trial 3 waits for its first stage, which another trial trains")
    assert lines[5].endswith("trial 3 epoch 2 of 5 loss=0.5000 balanced_accuracy=0.7500 ekld=0.1250")
    assert lines[6].endswith("trial 3 failed: loss became nan")


def test_the_live_table_shows_each_trial():
    shown = show(terminal=True)
    cells = ("baseline", "threshold", "all", "0.25", "DRS [/few]", "2/5", "0.7500", "0.1250", "1.5 s")
    for word in (*cells, "loss became nan"):
        assert word in shown
