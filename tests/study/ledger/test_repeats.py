"""A point that was evaluated before: its result is reused on a processor, and every record says so."""

import csv
import json

import numpy as np
import pytest

from gitdist.spec import SearchSpec, StudySpec
from gitdist.study.files.attribution import own_rows, trainer_name
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.records import TrialRecord, pareto_of
from gitdist.study.ledger.repeats import Repeats
from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy, check_whole

pytestmark = pytest.mark.timeout(600)

# The classes have 60, 50, 41, 35, 29, 24, 20, 17, 14 and 12 images: 30 and 35 are one setting, and 12 and 5.
PAIRS = ({30, 35}, {12, 5})
OVERRIDES = (
    "generator={kind: oracle}",
    "search={total: 9, algorithm: random, space: {threshold: {choice: [30, 35, 12, 5]}}}",
    "trial.fraction=0.5",
    "resources.max_concurrent=1",
    "trial.epochs=2",
    "sharing.stream=false",
)


def command(study: SmallStudy, name: str, *arguments: str):
    done = call(gitdist(name, study.name, "--results", str(study.results), *arguments))
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared_ray) -> SmallStudy:
    study = SmallStudy(tmp_path_factory.mktemp("repeats"), overrides=OVERRIDES)
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("whose result is reused") == 2
    assert "search.total is 9, but the search space has 4 points: each is tried once" in done.stdout
    return study


def repeats_of(study: SmallStudy) -> dict[int, int]:
    """The repeats among the study's trials: each with the one before it that trains the same."""
    params = [trial.params["threshold"] for trial in study.trials()]
    return {n: m for pair in PAIRS for m, n in [[i for i, value in enumerate(params) if value in pair]]}


@pytest.mark.ray
def test_every_point_of_a_small_space_is_tried_once_and_equal_ones_are_trained_once(finished):
    check_whole(finished, 4, epochs=2)
    expected = repeats_of(finished)
    trials, paths = finished.trials(), StudyPaths.at(finished.results, finished.name)
    assert sorted(trial.params["threshold"] for trial in trials) == [5, 12, 30, 35]
    assert {
        t.number: t.user_attrs["gitdist.repeat_of"] for t in trials if t.user_attrs.get("gitdist.repeat_of") is not None
    } == expected
    for repeat, original in expected.items():
        assert trials[repeat].values == trials[original].values
        assert trials[repeat].intermediate_values == trials[original].intermediate_values
        rows = read_rows(paths.rows(TrialId("trial", repeat)))
        assert rows == read_rows(paths.rows(TrialId("trial", original)))
        assert own_rows(rows, trainer_name(paths, TrialId("trial", repeat))) == []


@pytest.mark.ray
def test_status_summary_report_and_mlflow_show_what_was_reused_and_what_augments_nothing(finished):
    expected = repeats_of(finished)
    unaugmented = [t.number for t in finished.trials() if t.params["threshold"] in (12, 5)]
    summary = json.loads((finished.directory / "summary.json").read_text())
    assert {each["trial"]: each["repeat_of"] for each in summary["repeats"]} == expected
    assert summary["not_augmented"] == unaugmented and summary["replicates"] == []
    assert summary["trained_epochs"] == 2 + 2 * 1  # baseline and prefix, then an epoch of each setting but its equals
    values = json.loads(command(finished, "status", "--json").stdout)
    found = {int(t["trial"]): t["repeat_of"] for t in values["trials"] if t["repeat_of"] is not None}
    assert found == expected and values["total"] == 4
    shown = command(finished, "status").stdout
    report = command(finished, "report").stdout
    listed = f"trials {', '.join(map(str, unaugmented))}; no class is smaller than K (the smallest has 12 images)"
    reused = ", ".join(f"{repeat} (of {original})" for repeat, original in sorted(expected.items()))
    for text in (shown, report):
        assert listed in text and f"reused: trials {reused}" in text
    with open(finished.directory / "report" / "tables" / "trials.csv") as file:
        column = {row["trial"]: row["same training as"] for row in csv.DictReader(file)}
    assert {int(name): told for name, told in column.items() if told} == {
        repeat: f"trial {original} (result reused)" for repeat, original in expected.items()
    }
    tags = {run.data.tags.get("gitdist.trial"): run.data.tags.get("gitdist.repeat_of") for run in finished.runs()}
    assert {int(trial): int(of) for trial, of in tags.items() if of is not None} == expected


@pytest.mark.ray
def test_a_repeat_that_lost_its_directory_takes_the_result_again(finished):
    import shutil

    repeat = min(repeats_of(finished))
    before = (finished.directory / "trials" / f"{repeat:04d}" / "rows.jsonl").read_bytes()
    shutil.rmtree(finished.directory / "trials" / f"{repeat:04d}")
    command(finished, "resume")
    assert (finished.directory / "trials" / f"{repeat:04d}" / "rows.jsonl").read_bytes() == before
    check_whole(finished, 4, epochs=2)


SIZES = np.array([60, 35, 29, 12])


def spec_of(gpu: float = 0.0) -> StudySpec:
    space = {"threshold": {"int": [1, 99]}, "sampler": {"choice": ["instance", "square-root"]}}
    return StudySpec.model_validate({"name": "s", "search": {"space": space}, "resources": {"trial": {"gpu": gpu}}})


def record(number: int, threshold: int, state="finished", **fields) -> TrialRecord:
    return TrialRecord(number=number, params={"threshold": threshold, "sampler": "instance"}, state=state, **fields)


@pytest.mark.parametrize(
    ("gpu", "threshold", "expected"),
    [
        (0.0, 33, {"repeat_of": 1}),
        (0.0, 12, {"repeat_of": 1}),
        (0.0, 99, {}),
        (0.0, 61, {"replicate_of": 3}),
        (0.5, 33, {"replicate_of": 1}),
    ],
)
def test_the_link_of_a_new_trial(gpu, threshold, expected):
    earlier = [record(0, 31, "failed"), record(1, 30), record(2, 31, repeat_of=1), record(3, 70, "running")]
    params = {"threshold": threshold, "sampler": "instance"}
    if threshold == 12:
        earlier[1:3] = [record(1, 3), record(2, 12, repeat_of=1)]
    if threshold == 99:
        params["sampler"] = "square-root"
    assert Repeats(spec_of(gpu), SIZES).link(params, earlier) == expected


def test_a_repeat_is_not_beside_its_original_in_a_pareto_set():
    records = [
        TrialRecord(0, {}, "finished", (0.5, 0.1)),
        TrialRecord(1, {}, "finished", (0.5, 0.1), repeat_of=0),
        TrialRecord(2, {}, "finished", (0.5, 0.1), replicate_of=0),
    ]
    directions = SearchSpec(objective=("val/balanced_accuracy", "val/ekld")).directions
    assert [each.number for each in pareto_of(records, directions)] == [0, 2]
    assert [each.number for each in pareto_of(records[1:], directions)] == [1, 2]  # the original's files are lost
