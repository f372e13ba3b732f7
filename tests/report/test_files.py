"""From a study's files to its report and its MLflow run, without training and without Ray."""

import io
import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gitdist.cli.report import report_studies
from gitdist.errors import StoreError, StudyError
from gitdist.report.records import read_study
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import parse_plan, parse_study
from gitdist.study.campaign import store_campaign
from gitdist.study.compatibility import ensure_identity, store_spec
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.results import LocalResults
from gitdist.study.files.rows import open_rows
from gitdist.study.files.times import Span
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.monitoring.mlflow.sync import StudyRecord, sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.study import GENERATOR, Study
from tests.epoch_rows import epoch_row
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, Runs

SIZES = [30, 10, 3]


def leave_trial(paths: StudyPaths, trial: TrialId, accuracy: float) -> None:
    """Leave a trial's directory as a worker does, its test metrics among it."""
    paths.trial(trial).mkdir(parents=True)
    per_class = {"accuracy_per_class": [0.9, accuracy, 0.1], "ekld_per_class": [0.1, 0.2, 0.4]}
    metrics = {"balanced_accuracy": accuracy, "few_accuracy": 0.1, "ekld": 0.233}
    row = epoch_row(metrics={f"val/{name}": value for name, value in metrics.items()}, per_class=per_class)
    open_rows(paths.rows(trial), [row]).close()
    described = {"title": "t", "classes": {"names": ["cat", "dog", "owl"], "sizes": SIZES}}
    (paths.trial(trial) / "trial.json").write_text(json.dumps(described))
    tested = {"metrics": {f"test/{name}": value for name, value in metrics.items()}, **per_class}
    paths.test(trial).write_text(json.dumps(tested))


def study_file(name: str, version: int = 0) -> dict[str, Any]:
    space = {"fraction": {"choice": [0.25, 0.5, 0.75]}}
    return {
        "name": name,
        "data": {"source": "digits", "nuisance": "background", "version": version},
        "trial": {"epochs": 1},
        "search": {"algorithm": "grid", "total": 3, "space": space},
    }


def leave_study(results: Path, name: str, version: int, finished: int = 2) -> StudyPaths:
    """Leave a study as a driver does after ``finished`` of its three trials."""
    paths = StudyPaths.at(results, name)
    spec = parse_study(study_file(name, version), "test")
    paths.create()
    store_spec(paths, spec)
    ledger = Ledger.open(paths, spec)
    ensure_identity(paths, ledger)
    for number in range(finished):
        leave_trial(paths, TrialId("trial", ledger.next_trial().number), 0.5 + number / 10)
        ledger.finish(number, {"val/balanced_accuracy": 0.5 + number / 10})
    ledger.close()
    leave_trial(paths, BASELINE, 0.4)
    return paths


@pytest.fixture
def results(tmp_path, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def console():
    return Console(record=True, width=400, file=io.StringIO())


def test_a_campaign_of_two_versions_one_of_them_running(results, console):
    for name, version in (("c.version0", 0), ("c.version1", 1)):
        paths = leave_study(results, name, version, finished=3 - version)
        sync_study(
            paths,
            tracking_uri(paths, None),
            StudyRecord(identity=paths.identity.read_text(), description=DESCRIPTION, states={}),
        )
    campaign = parse_plan({**study_file("c"), "title": "Both", "matrix": {"data.version": [0, 1, 2]}}, "test")
    assert isinstance(campaign, Campaign)
    store_campaign(results, campaign)
    report_studies(["c"], LocalResults(results), None, console)
    told = console.export_text()
    assert "skipped: no study 'c.version2'" in told and "report of 2 studies:" in told and "logged to 2 runs" in told
    out = results / "c" / "report"
    page = (out / "index.html").read_text()
    assert "<h1>Both</h1>" in page and "2 studies, 5 of 5 trials finished; not all studies have finished." in page
    lines = (out / "tables" / "methods-digits-background.csv").read_text().splitlines()
    # baseline, then three fractions: the grid is tried in one order, so the third is of version 0 alone
    assert sorted(int(line.split(",")[1]) for line in lines[1:]) == [1, 2, 2, 2]
    run = Runs(tracking_uri(StudyPaths.at(results, "c.version0"), None), "c.version0")
    parent = run.by_key()["study"].info.run_id
    assert {file.path for file in run.client.list_artifacts(parent, "report")} == {
        "report/index.html",
        "report/figures",
        "report/tables",
    }


def test_several_studies_and_no_mlflow(results, console, monkeypatch):
    for name in ("a", "b"):
        leave_study(results, name, 0, finished=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db")
    report_studies(["a", "b"], LocalResults(results), None, console)
    told = console.export_text().splitlines()
    assert re.search(r"/report-a-b-[0-9a-f]{6}/index.html$", told[0]) and len(told) == 2
    assert told[1].startswith(
        "the report is not in MLflow: the MLflow store sqlite:////proc/none/mlflow.db cannot be used"
    )


def test_reports_of_other_studies_lie_elsewhere(results, console):
    for name in ("a", "b", "c", "d", "e", "a-b", "b-c"):
        leave_study(results, name, 0, finished=1)
    for names in (["a-b", "c"], ["a", "b-c"], ["a", "b", "c", "d"], ["a", "b", "c", "e"]):
        report_studies(names, LocalResults(results), None, console)
    assert len(list(results.glob("report-*/index.html"))) == 4


def test_a_record_knows_the_seed_that_its_method_sets_and_the_generator(results):
    paths = StudyPaths.at(results, "m")
    values = study_file("m")
    values["search"] |= {"total": 2, "space": {}}
    spec = parse_study({**values, "methods": {"A": {"seed": 3}, "B": {}}, "trial": {"epochs": 1, "seed": 5}}, "test")
    paths.create()
    with closing(Ledger.open(paths, spec)) as ledger:
        for _ in range(2):
            leave_trial(paths, TrialId("trial", ledger.next_trial().number), 0.5)
        ledger.set_attr(GENERATOR, "munit-of-m")
        record = read_study(Study(paths, spec, ledger), {"study": "m"})
    assert {trial.params["method"]: trial.seed for trial in record.trials} == {"A": 3, "B": 5}
    assert record.generator == "munit-of-m"


def test_a_record_knows_the_distinct_images_per_class_where_they_were_recorded(results):
    spec, found = parse_study(study_file("s"), "test"), []
    paths = leave_study(results, "s", 0, finished=2)
    for recorded in ({}, {"distinct": [20, 10, 3]}):
        for described in paths.study.rglob("trial.json"):
            values = json.loads(described.read_text())
            described.write_text(json.dumps({**values, "classes": {**values["classes"], **recorded}}))
        with closing(Ledger.open(paths, spec)) as ledger:
            found.append(read_study(Study(paths, spec, ledger), {"study": "s"}).trials)
    assert {trial.classes.distinct for trial in found[0]} == {None}
    for trial in found[1]:
        assert (trial.classes.sizes.tolist(), trial.classes.distinct.tolist()) == (SIZES, [20, 10, 3])


def test_a_record_has_the_objective_by_epoch_and_the_times(results):
    spec = parse_study(study_file("s"), "test")
    paths = leave_study(results, "s", 0, finished=1)
    lines = [{"of": "generator", "started_at": 1.0}, {"of": "0", "started_at": 2.0}, {"of": "0", "ended_at": 9.0}]
    paths.times.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with closing(Ledger.open(paths, spec)) as ledger:
        record = read_study(Study(paths, spec, ledger), {"study": "s"})
    (trial,) = record.trials
    assert trial.curve == {1: trial.metric("validation", "balanced_accuracy")}
    assert (trial.span, record.generator_span) == (Span(2.0, 9.0), Span(1.0))


def test_a_directory_that_cannot_be_written_has_a_remedy(results, console):
    leave_study(results, "a", 0, finished=1)
    (results / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/out.*--out DIR"):
        report_studies(["a"], LocalResults(results), results / "file" / "out", console)


def test_what_is_not_there_or_damaged_is_one_line(results, console):
    with pytest.raises(StudyError, match="no study 'nothing'"):
        report_studies(["nothing"], LocalResults(results), None, console)
    (results / "c").mkdir()
    (results / "c" / "campaign.yaml").write_text("members: [1]")
    with pytest.raises(StudyError, match=r"campaign.yaml must contain the campaign as it was started"):
        report_studies(["c"], LocalResults(results), None, console)
    leave_study(results, "early", 0, finished=0)
    with pytest.raises(StudyError, match=r"\(early\): no trials"):
        report_studies(["early"], LocalResults(results), None, console)


def test_a_trial_whose_file_lost_its_values_per_class_is_left_out_of_their_figure(results, console):
    paths = leave_study(results, "s", 0, finished=3)
    file = paths.test(TrialId("trial", 1))
    file.write_text(file.read_text().replace("_per_class", "_per_clasX"))
    report_studies(["s"], LocalResults(results), None, console)
    assert "report of" in console.export_text()
    assert list((paths.study / "report" / "figures").glob("accuracy-per-class-*"))
