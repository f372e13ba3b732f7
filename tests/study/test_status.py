import io
import json
import os
import time
from dataclasses import asdict, replace
from datetime import datetime

import pytest
from optuna.trial import TrialState
from rich.console import Console

from gitdist.api.tables import trial_table
from gitdist.cli.status import show_status
from gitdist.cli.tables import summary_tables
from gitdist.data import DATASET_FORMAT
from gitdist.errors import StudyError
from gitdist.report.records import read_study
from gitdist.spec import StudySpec
from gitdist.spec.file import dump_study
from gitdist.study.compatibility import check_spec, load_stored_spec
from gitdist.study.files.fencing import Attempt, end_attempt
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import open_rows
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.models import choose_trial
from gitdist.study.monitoring.mlflow.notes import study_note
from gitdist.study.status import read_status
from gitdist.study.study import BASELINE_FAILURE, Study
from gitdist.study.summary import read_summary, write_summary
from gitdist.study.trial_status import TrialStatus, time_left
from tests.disks import read_only
from tests.epoch_rows import epoch_row
from tests.study.ended_study import NAME, make_study
from tests.study.sightings import STREAM

EPOCHS = 4


def standing(state: str, epoch: int, seconds: float | None = 2.0) -> TrialStatus:
    return TrialStatus(trial="0", state=state, epoch=epoch, epochs=EPOCHS, params={}, metrics={}, seconds=seconds)


def test_time_left_is_the_epochs_to_do_at_the_mean_seconds_shared_by_those_at_once():
    trials = [standing("finished", 4), standing("running", 1, 4.0), standing("running", 3, 4.0)]
    mean_s = (4 * 2.0 + 1 * 4.0 + 3 * 4.0) / 8
    to_do = 3 + 1 + 2 * 4  # two running, two to come
    assert time_left(trials, 2, EPOCHS, None) == pytest.approx(to_do * mean_s / 2)


def test_pruned_trials_make_the_ones_to_come_shorter():
    trials = [standing("finished", 4), standing("pruned", 2)]
    assert time_left(trials, 10, EPOCHS, 5) == pytest.approx(10 * 3 * 2.0 / 5)


def test_before_the_first_epoch_there_is_no_estimate():
    assert time_left([standing("running", 0, None)], 3, EPOCHS, None) is None
    assert time_left([], 3, EPOCHS, None) is None


@pytest.fixture
def study(tmp_path):
    spec = StudySpec.model_validate(
        {
            "name": "study",
            "trial": {"epochs": EPOCHS},
            "search": {"total": 4, "algorithm": "random", "space": {"fraction": {"float": [0, 1]}}},
        }
    )
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    ledger = Ledger.open(paths, spec)
    yield paths, spec, ledger
    ledger.close()


def write_rows(paths: StudyPaths, trial: TrialId, num: int) -> None:
    paths.trial(trial).mkdir(parents=True)
    rows = [
        epoch_row(epoch, metrics={"val/balanced_accuracy": 0.1 * epoch}, train_s=1.5, evaluating_s=0.5)
        for epoch in range(1, num + 1)
    ]
    open_rows(paths.rows(trial), rows).close()


def test_an_unfinished_study_with_older_splits_names_the_fork_instead_of_resume(study):
    paths, spec, ledger = study
    paths.spec.write_text(dump_study(spec))
    ledger.next_trial()
    ledger.set_attr("data", "aaaa")  # without a data format, as gitdist 0.5 left it
    found = read_status(Study(paths, spec, ledger))
    assert (found.state, found.resumable) == ("interrupted", False)
    assert any("earlier version" in note for note in found.notes)
    console = Console(file=io.StringIO(), width=200)
    show_status("study", paths.results, console, as_json=False)
    assert "--fork NAME" in console.file.getvalue() and "gitdist resume" not in console.file.getvalue()
    ledger.set_attr("data_format", DATASET_FORMAT)
    found = read_status(Study(paths, spec, ledger))
    assert found.resumable and not found.notes


def test_a_study_is_running_while_a_driver_lives_and_interrupted_after(study):
    paths, spec, ledger = study
    ledger.next_trial(), ledger.next_trial(), ledger.next_trial()
    ledger.finish(0, {"val/balanced_accuracy": 0.4})
    ledger.fail(1, "the loss is nan")
    write_rows(paths, BASELINE, EPOCHS)
    write_rows(paths, TrialId("trial", 0), EPOCHS)
    write_rows(paths, TrialId("trial", 2), 1)
    place = paths.trial(TrialId("trial", 2))
    with Lease.claim(ledger.storage, "study") as former:
        Attempt.begin(place, former.epoch, paths.results)
    with Lease.claim(ledger.storage, "study") as lease:
        assert [trial.state for trial in read_status(Study(paths, spec, ledger)).trials][3] == "waiting"
        Attempt.begin(place, lease.epoch, paths.results)
        end_attempt(place, lease.epoch, paths.results)  # its worker is lost, and there is no room for another
        assert [trial.state for trial in read_status(Study(paths, spec, ledger)).trials][3] == "waiting"
        Attempt.begin(place, lease.epoch, paths.results)
        os.utime(place / "attempt", (0, 0))  # by a clock that is late
        now = read_status(Study(paths, spec, ledger))
    assert (now.state, now.total, now.counts) == ("running", 4, {"finished": 1, "failed": 1, "running": 1})
    assert now.owner.state == "live"
    assert [(trial.trial, trial.state, trial.epoch) for trial in now.trials] == [
        ("baseline", "finished", 4),
        ("0", "finished", 4),
        ("1", "failed", 0),
        ("2", "running", 1),
    ]
    assert now.trials[1].metrics == {"val/balanced_accuracy": pytest.approx(0.4)}
    assert now.trials[2].reason == "the loss is nan"
    assert now.time_left_s == pytest.approx(2.0 * (3 + 4))
    assert now.best == [{"trial": 0, "params": dict(ledger.trials()[0].params), "objectives": [0.4]}]
    later = read_status(Study(paths, spec, ledger))
    assert (later.state, later.counts, later.owner) == (
        "interrupted",
        {"finished": 1, "failed": 1, "interrupted": 1},
        None,
    )
    values = later.as_json()
    assert values["trials"][3]["state"] == "interrupted" and values["owner"] is None


def test_the_best_so_far_is_set_beside_the_baseline_with_standard_errors(study, capsys):
    paths, spec, ledger = study
    paths.spec.write_text(dump_study(spec))
    ledger.finish(ledger.next_trial().number, {"val/balanced_accuracy": 0.9})
    upper = {"val/balanced_accuracy": 0.9, "val/balanced_accuracy_se": 0.03}
    lower = {"val/balanced_accuracy": 0.8, "val/balanced_accuracy_se": 0.04}
    for trial, metrics, epochs in ((TrialId("trial", 0), upper, EPOCHS), (BASELINE, lower, EPOCHS - 1)):
        paths.trial(trial).mkdir(parents=True)
        rows = [epoch_row(epoch, metrics=metrics) for epoch in range(1, epochs + 1)]
        open_rows(paths.rows(trial), rows).close()
    (gap,) = read_status(Study(paths, spec, ledger)).gaps
    assert (gap.best.standard_error, gap.baseline) == (0.03, None)  # of a baseline that still trains
    open_rows(paths.rows(BASELINE), [*rows, epoch_row(EPOCHS, metrics=lower)]).close()
    values = read_status(Study(paths, spec, ledger)).as_json()["gaps"]
    assert values[0]["difference"] == {"value": pytest.approx(0.1), "standard_error": pytest.approx(0.05)}
    show_status("study", paths.results, Console(width=80), as_json=False)
    shown = capsys.readouterr().out
    assert (
        "balanced accuracy, validation: best 0.9000 ± 0.0300, baseline 0.8000 ± 0.0400, gap +0.1000 ± 0.0500"
        " (± standard error)\n"
    ) in shown


def test_a_study_that_has_ended_is_finished_with_a_summary_and_failed_without_a_finished_trial(study):
    paths, spec, ledger = study
    for _ in range(3):
        ledger.fail(ledger.next_trial().number, "the loss is nan")
    last = ledger.next_trial().number
    write_rows(paths, BASELINE, EPOCHS - 1)
    ledger.requeue(last)
    assert read_status(Study(paths, spec, ledger)).state == "interrupted"
    open_rows(paths.rows(BASELINE), [epoch_row(EPOCHS)]).close()
    assert read_status(Study(paths, spec, ledger)).state == "interrupted"
    ledger.finish(last, {"val/balanced_accuracy": 0.4})
    write_rows(paths, TrialId("trial", last), EPOCHS)
    assert read_status(Study(paths, spec, ledger)).state == "interrupted"
    paths.summary.write_text("{}")  # damaged
    assert read_status(Study(paths, spec, ledger)).state == "interrupted"
    write_summary(Study(paths, spec, ledger))
    assert read_status(Study(paths, spec, ledger)).state == "finished"


def test_where_every_trial_failed_the_study_has(study):
    paths, spec, ledger = study
    while (record := ledger.next_trial()) is not None:
        ledger.fail(record.number, "the loss is nan")
    ledger.set_attr(BASELINE_FAILURE, "the loss is nan")
    paths.trial(BASELINE).mkdir()
    assert read_status(Study(paths, spec, ledger)).state == "failed"


def test_as_json_the_owner_has_numbers_and_times(study):
    paths, spec, ledger = study
    with Lease.claim(ledger.storage, "study"):
        values = read_status(Study(paths, spec, ledger)).as_json()
    assert values["owner"]["pid"] == os.getpid() and values["owner"]["lease_s"] == 60.0
    assert datetime.fromisoformat(values["owner"]["since"]) <= datetime.fromisoformat(values["owner"]["last_beat"])
    assert json.loads(json.dumps(values)) == {**values, "objectives": list(values["objectives"])}


def test_the_table_shows_a_reason_as_it_is_and_the_lines_what_to_do(study, capsys):
    paths, spec, ledger = study
    paths.spec.write_text(dump_study(spec))
    ledger.next_trial(), ledger.next_trial()
    ledger.fail(0, "KeyError: '[/tmp/x]' in layer[conv1]")
    write_rows(paths, TrialId("trial", 1), 1)
    show_status("study", paths.results, Console(width=200), as_json=False)
    shown = capsys.readouterr().out
    assert "failed: KeyError: '[/tmp/x]' in layer[conv1]" in shown
    assert "2 of 4 trials: 1 failed, 1 interrupted" in shown
    assert f"resume with: gitdist resume study --results {paths.results}" in shown
    assert "about 30 s of training left" in shown  # 3 epochs of trial 1, 2 trials of 4 and the baseline, at 2 s
    with Lease.claim(ledger.storage, "study"):
        show_status("study", paths.results, Console(width=200), as_json=False)
    assert f"run by pid {os.getpid()} on " in capsys.readouterr().out


def test_the_newest_figures_of_the_stream_are_shown_while_the_study_runs(study, capsys):
    paths, spec, ledger = study
    paths.spec.write_text(dump_study(spec))
    paths.monitor_log.write_text(json.dumps({"step": 1, "at": time.time() - 20, **STREAM}) + "\n")
    told = (
        "ago: 12 images/s, 7 of 99 blocks in the window, servers generate 50 % of the time, "
        "trials waited 1.5 s in total"
    )
    with Lease.claim(ledger.storage, "study"):
        show_status("study", paths.results, Console(width=200), as_json=False)
        assert told in (shown := capsys.readouterr().out) and "stream, 2" in shown
        show_status("study", paths.results, Console(width=200), as_json=True)
        assert json.loads(capsys.readouterr().out)["stream"]["stream/waiting_s"] == 1.5
        paths.monitor_log.write_text(
            json.dumps({"step": 2, "at": time.time(), "system/cpu_utilization_percentage": 3.0})
        )
        show_status("study", paths.results, Console(width=200), as_json=False)
        assert "stream" not in capsys.readouterr().out
    show_status("study", paths.results, Console(width=200), as_json=False)
    assert read_status(Study(paths, spec, ledger)).stream is None and told not in capsys.readouterr().out


def test_where_every_trial_was_pruned_nothing_is_to_be_retried(study, capsys):
    paths, spec, ledger = study
    paths.spec.write_text(dump_study(spec))
    while (record := ledger.next_trial()) is not None:
        ledger._study.tell(record.number, state=TrialState.PRUNED)
    write_rows(paths, BASELINE, EPOCHS)
    show_status("study", paths.results, Console(width=200), as_json=False)
    shown = capsys.readouterr().out
    assert "no trial finished; all were pruned; raise search.pruner.min_epochs" in shown and "retry" not in shown


def test_trials_to_come_find_the_epochs_that_others_took_over():
    trials = [standing("finished", 4), replace(standing("running", 3), shared=2), standing("waiting", 0)]
    to_do = 1 + 2 + 3 * 2  # the running one, the waiting one without its prefix, three to come likewise
    assert time_left(trials, 3, EPOCHS, None) == pytest.approx(to_do * 2.0)


@pytest.fixture(params=["sqlite", "journal"])
def left_alone(study, request):
    """A study of one trial that no process has open, as on a disk of another machine."""
    paths, spec, _ = study
    spec = spec.model_copy(update={"name": "alone", "ledger": request.param})
    paths = StudyPaths.at(paths.results, "alone")
    paths.create()
    ledger = Ledger.open(paths, spec)
    ledger.next_trial()
    ledger.close()
    paths.spec.write_text(dump_study(spec))
    paths.lock.unlink()
    return paths


def contents(directory):
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in directory.iterdir()}


def test_status_changes_nothing(left_alone, capsys):
    before = contents(left_alone.study)
    show_status("alone", left_alone.results, Console(width=200), as_json=False)
    assert "1 of 4 trials: 1 interrupted" in capsys.readouterr().out
    assert contents(left_alone.study) == before


def test_status_needs_no_permission_to_write(left_alone, capsys):
    with read_only(left_alone.root):
        show_status("alone", left_alone.results, Console(width=200), as_json=False)
    assert "1 of 4 trials: 1 interrupted" in capsys.readouterr().out


def test_a_ledger_without_the_study_is_told_and_left_as_it_is(left_alone):
    spec = load_stored_spec(left_alone).model_copy(update={"name": "other"})
    before = contents(left_alone.study)
    with pytest.raises(StudyError, match="has no study 'other'; `gitdist run` starts it"):
        Ledger.open(left_alone, spec, read_only=True)
    assert contents(left_alone.study) == before


def test_a_study_without_a_feasible_trial_is_finished_and_says_so(tmp_path):
    paths = make_study(tmp_path, search={"constraints": ["balanced_accuracy >= 0.99"], "total": 2})
    with Study.open(paths, load_stored_spec(paths)) as study:
        found = read_status(study)
        assert (found.state, found.best, found.gaps, found.counts) == ("finished", [], [], {"finished": 2})
        assert [note for note in found.notes if "no trial meets the constraints val/balanced_accuracy >= 0.99" in note]
        with pytest.raises(StudyError, match="no trial of study .* meets the constraints"):
            choose_trial(study, None)
        assert choose_trial(study, 1).trial.number == 1
        report = read_study(study, {})
        assert (report.best, report.gaps, report.notes) == ((), [], tuple(found.notes))
    summary = read_summary(paths)
    assert (summary["best"], summary["gaps"], summary["trials"]) == (None, [], {"finished": 2})
    assert list(summary_tables(summary)) == []
    assert study_note(summary, load_stored_spec(paths)).startswith("No trial meets")


def test_replicates_are_shown_with_their_seeds_and_the_best_point_with_its_mean(tmp_path, capsys):
    search = {"total": 2, "replicates": 2, "constraints": ["balanced_accuracy >= 0.75"]}
    paths = make_study(tmp_path, search=search)  # accuracies 0.5, 0.6 and 0.7, 0.8
    show_status(NAME, paths.results, Console(width=150), as_json=False)
    shown = capsys.readouterr().out
    assert "best so far: trials 2, 3, mean val/balanced_accuracy 0.7500" in shown
    assert [line.split()[2] for line in shown.splitlines()[2:7]] == ["-", "0", "1", "0", "1"]
    with Study.open(paths, load_stored_spec(paths)) as study:
        found, report = read_status(study), read_study(study, {})
        assert found.best[0]["replicates"] == [2, 3]
        assert (found.total, found.state, found.notes) == (4, "finished", [])
        assert choose_trial(study, None).trial.number == 2
        assert [trial.feasible for trial in report.trials] == [False, False, True, True]
        paths.test(TrialId("trial", 3)).unlink()
        assert [note for note in read_status(study).notes if "test.json is missing" in note] != []
        assert trial_table(study)["feasible"].tolist()[1:] == [False, False, True, True]
    console = Console(width=150)
    console.print(*summary_tables(read_summary(paths)))
    assert "mean of trials 2, 3: val/balanced_accuracy 0.7500" in capsys.readouterr().out


def test_a_stop_rule_ends_a_study_and_a_looser_one_continues_it(tmp_path):
    paths = make_study(tmp_path, search={"total": 2})
    stored = load_stored_spec(paths)
    for target, total, state in ((0.55, 2, "finished"), (0.9, 9, "interrupted")):
        search = stored.search.model_copy(update={"total": 9, "target": target})
        spec = stored.model_copy(update={"search": search})
        check_spec(paths, spec)
        with Study.open(paths, spec) as study:
            found, is_ended = read_status(study), state == "finished"
            assert (found.state, found.total) == (state, total)
            assert (found.stop is not None, found.may_stop) == (is_ended, not is_ended)
            assert any("search.target" in note for note in found.notes) == is_ended
            assert write_summary(study)["stop"] == (None if found.stop is None else asdict(found.stop))


def test_the_hours_of_a_study_limit_the_time_left(study):
    paths, spec, ledger = study
    ledger.finish(ledger.next_trial().number, {"val/balanced_accuracy": 0.4})
    write_rows(paths, TrialId("trial", 0), EPOCHS)
    for hours, left_s in ((1.0, 2.0 * 4 * 4), (0.005, 18.0)):
        limited = spec.model_copy(update={"search": spec.search.model_copy(update={"max_hours": hours})})
        assert read_status(Study(paths, limited, ledger)).time_left_s == pytest.approx(left_s)
