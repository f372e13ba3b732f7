import csv
from dataclasses import replace

import numpy as np
import pytest

from gitdist.data.longtail import class_sizes, size_groups
from gitdist.report.comparison import Report
from gitdist.report.findings import findings
from gitdist.report.page import write_report
from gitdist.report.records import ClassInfo, split_metrics
from gitdist.report.statistics import Interval
from gitdist.report.tables import (
    Table,
    best_tables,
    difference_tables,
    format_cell,
    gap_tables,
    method_tables,
    published_accuracy,
    trials_table,
)
from gitdist.spec import DataSpec, ProfileSpec
from tests.report.studies import study, trial

TABLE = Table(
    "t", "a & b", ["name", "x", "n"], [["50% _a", Interval(-0.5, 0.25, 3), 12_000], ["b", Interval(1.0, None, 1), None]]
)


def only(tables, *studies):
    """Return the one table that a function of ``SECTIONS`` makes of studies."""
    (table,) = tables(Report(studies))
    return table


def test_csv_has_the_raw_numbers():
    assert list(csv.reader(TABLE.csv().splitlines())) == [
        ["name", "x", "x low", "x high", "n"],
        ["50% _a", "-0.5", "-0.75", "-0.25", "12000"],
        ["b", "1.0", "", "", ""],
    ]


def test_latex_is_escaped():
    lines = TABLE.latex().splitlines()
    assert lines[:2] == ["% a & b", r"\begin{tabular}{lrr}"]
    assert r"50\% \_a & $-$0.5000 $\pm$ 0.2500 & 12,000 \\" in lines
    assert r"b & 1.0000 & -- \\" in lines


def test_methods_are_compared_over_their_replicates():
    space = {"sampler": {"choice": ["instance", "class-balanced"]}, "seed": {"choice": [0, 1]}}
    trials = [
        trial(2 * at + seed, {"sampler": sampler, "seed": seed}, accuracy=0.5 + 0.1 * at + 0.02 * seed * at)
        for at, sampler in enumerate(space["sampler"]["choice"])
        for seed in (0, 1)
    ]
    record = study(space=space, trials=trials)
    table = only(method_tables, record)
    assert [row[:2] for row in table.rows] == [["sampler instance", 2], ["sampler class-balanced", 2]]
    assert table.columns[2] == "balanced accuracy (0..1)" and "eKLD (nats)" in table.columns
    assert {"few-shot eKLD (nats)", "consistency (0..1)"} <= set(table.columns)
    (row,) = only(difference_tables, record).rows
    assert row[:2] == ["sampler class-balanced − sampler instance", 2]
    assert round(row[2].mean, 12) == 0.11


@pytest.mark.parametrize(
    ("kind", "under"),
    [("munit", "the learned generator"), ("identity", "the identity"), ("randaugment", "RandAugment")],
)
def test_ekld_under_a_generator_is_named_everywhere(kind, under):
    data = {"source": "digits", "nuisance": "none"}
    unknown = study(trials=[trial(0)], best=(0,), data=data, generator={"kind": kind})
    marked = f"eKLD under {under} (nats)"
    assert marked in only(method_tables, unknown).columns
    assert marked in [row[0] for row in only(best_tables, unknown).rows]
    table = only(trials_table, unknown)
    assert table.rows[0][table.columns.index("eKLD under")] == kind


def test_invariance_under_different_generators_is_not_compared():
    data = {"source": "digits", "nuisance": "none", "profile": {"kind": "zipf"}}
    studies = [
        replace(
            study(f"{draws}{v}", None, [trial(0)], {"draws": draws, "version": v}, data={**data, "version": v}),
            generator=generator,
        )
        for draws, v, generator in (("a", 0, "x"), ("b", 0, "y"), ("a", 1, "z"))
    ]
    names = ["balanced accuracy (0..1)", "few-shot accuracy (0..1)"]
    assert only(difference_tables, *studies).columns[2:] == names
    assert "eKLD under each study's own generator (nats)" in only(method_tables, *studies).columns
    sentences = findings(Report(studies))
    assert sentences[0] == (
        "digits: eKLD and consistency were measured under different generators, so settings are not compared in them."
    )
    assert not any("rank correlation" in sentence for sentence in sentences)
    same = Report([studies[0], studies[2]])  # each version of a data set has its own generator
    assert "rank correlation" in findings(same)[0]
    known = [
        replace(each, spec=each.spec.model_copy(update={"data": DataSpec(nuisance="rotation")})) for each in studies
    ]
    assert "eKLD (nats)" in only(difference_tables, *known).columns


def test_the_best_trial_is_compared_with_the_baseline_if_there_is_one():
    alone = study(trials=[trial(0)], best=(0,))
    assert only(best_tables, alone).caption == "s: chosen on validation"
    table = only(best_tables, replace(alone, baseline=trial(None)))
    assert table.columns == ["metric", "split", "baseline", "trial 0"] and "without augmentation" in table.caption


def test_a_rank_correlation_lies_between_its_limits():
    cell = Interval(-0.95, 0.2, 3, limits=(-1.0, 1.0))
    assert format_cell(cell) == "−0.9500 [−1.0000, −0.7500]"
    assert format_cell(Interval(-1.0, None, 1, limits=(-1.0, 1.0))) == "−1.0000"
    assert Table("t", "", ["r"], [[cell]]).csv().splitlines()[1] == "-0.95,-1.0,-0.75"


def with_errors(record, error, **metrics):
    """Return a trial with metrics on both splits, all with one standard error; 0 = an old record without one."""
    errors = {f"{name}_se": error for name in metrics} if error else {}
    splits = {
        split: replace(found, metrics={**found.metrics, **metrics, **errors}) for split, found in record.splits.items()
    }
    return replace(record, splits=splits)


def gap_study(error=0.03, baseline_error=0.04, **search):
    trials = [with_errors(trial(n), error, balanced_accuracy=value) for n, value in enumerate((0.6, 0.64))]
    baseline = with_errors(trial(None), baseline_error, balanced_accuracy=0.6)
    return replace(study(trials=trials, best=(1,), search=search), baseline=baseline)


def test_the_gap_of_the_best_trial_has_standard_errors():
    record = gap_study()
    assert only(gap_tables, record).rows == [
        ["balanced accuracy (0..1)", split, 0.6, 0.04, 0.64, 0.03, pytest.approx(0.04), pytest.approx(0.05), hint]
        for split in ("validation", "test")
        for hint in ("the gap is smaller than its standard error",)
    ]
    assert findings(Report([record]))[-2:] == [
        f"s: balanced accuracy, {split}: best 0.6400 ± 0.0300, baseline 0.6000 ± 0.0400, gap +0.0400 ± 0.0500 "
        "(± standard error); the gap is smaller than its standard error."
        for split in ("validation", "test")
    ]
    table = only(trials_table, record)
    place = table.columns.index("validation standard error of balanced accuracy")
    assert [row[place] for row in table.rows] == [0.04, 0.03, 0.03]


def test_a_gap_of_an_old_record_has_no_standard_error():
    record = gap_study(0, 0)
    assert only(gap_tables, record).rows[0][2:] == [0.6, None, 0.64, None, pytest.approx(0.04), None, None]
    assert findings(Report([record]))[-1] == ("s: balanced accuracy, test: best 0.6400, baseline 0.6000, gap +0.0400.")
    assert "validation standard error of balanced accuracy" not in only(trials_table, record).columns


def test_standard_errors_are_not_compared_as_metrics(tmp_path):
    """Neither a column of settings and differences, nor a figure: but for the gap the report is that of old records."""
    outs = [tmp_path / "new", tmp_path / "old"]
    files = [
        write_report("s", [gap_study(*errors)], out) for out, errors in zip(outs, ((0.03, 0.04), (0, 0)), strict=True)
    ]
    names = [[file.relative_to(out) for file in some] for out, some in zip(outs, files, strict=True)]
    assert names[0] == names[1] and any(name.suffix == ".svg" for name in names[0])
    same = [name for name in names[0] if name.parts[0] == "figures" or name.stem.startswith(("methods", "differences"))]
    assert len(same) > 4 and all((outs[0] / name).read_bytes() == (outs[1] / name).read_bytes() for name in same)


def test_a_class_without_validation_images_has_no_value_in_the_report(tmp_path):
    """Nothing else is lost: means are over the other classes, figures and tables leave the class out."""
    records = []
    for number in (None, 0):
        record = trial(number, sizes=(200, 100, 50, 10, 5), test=False)
        found = record.splits["validation"]
        per_class = {name: np.where(np.arange(5) == 4, np.nan, values) for name, values in found.per_class.items()}
        metrics = {f"val/{name}": value for name, value in found.metrics.items() if not name.startswith("few_")}
        measured = split_metrics(metrics, per_class, "val/", record.classes.groups)
        records.append(replace(record, splits={"validation": measured}))
    baseline, best = records
    assert best.splits["validation"].metrics["few_ekld"] > 0  # the other few-shot class has images
    files = write_report("s", [study(trials=[best], baseline=baseline, best=(0,))], tmp_path)
    names = {file.name for file in files}
    assert {"accuracy-per-class-digits-background.svg", "ekld-by-class-size-digits-background.svg"} <= names
    assert "nan" not in files[0].read_text()


def test_the_gap_is_that_of_the_best_in_the_first_objective():
    record = gap_study(objective=["val/ekld", "val/balanced_accuracy"])
    record = replace(record, best=(0, 1))
    assert [(gap.metric, gap.split) for gap in record.gaps] == [
        (metric, split) for metric in ("ekld", "balanced_accuracy") for split in ("validation", "test")
    ]
    assert record.gaps[2].best.value == 0.6 and record.gaps[0].hint == "no gain over the baseline"


def test_there_is_no_gap_without_a_baseline_or_a_finished_trial():
    record = gap_study()
    alone = replace(record, baseline=None)
    assert only(gap_tables, alone).rows[0][2:] == [None, None, 0.64, 0.03, None, None, None]
    assert not any("gap" in sentence for sentence in findings(Report([alone])))
    assert not list(gap_tables(Report([replace(record, trials=(), best=())])))


def classes(sizes, distinct=None) -> ClassInfo:
    names = tuple(f"c{index}" for index in range(len(sizes)))
    return ClassInfo(
        names, np.array(sizes), size_groups(sizes, "auto"), None if distinct is None else np.array(distinct)
    )


PUBLISHED = {"cifar-10": (10, 5000, 4800, 0.7876), "cifar-100": (100, 500, 400, 0.4435)}


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_accuracies_need_as_many_distinct_images(source):
    """Version 0.5.0 filled classes with copies: by default 100 images of CIFAR-100's class 0 are held out of 500."""
    num_classes, largest, left, reached = PUBLISHED[source]
    data = DataSpec(source=source)
    sizes = class_sizes(ProfileSpec(kind="exponential", largest=largest), [left] * num_classes, 0)
    with_copies = np.minimum(sizes, left)
    assert (sum(sizes) - with_copies.sum() > 0) and sizes[0] == largest
    assert published_accuracy(data, classes(sizes)) is None  # recorded by 0.5.0
    assert published_accuracy(data, classes(sizes, with_copies)) is None
    assert published_accuracy(data, classes(with_copies, with_copies)) is None
    assert published_accuracy(data, classes(sizes, sizes)) == reached


@pytest.mark.parametrize("distinct", [None, "all", "some"])
def test_the_report_shows_the_published_accuracy_for_the_same_data_only(tmp_path, distinct):
    data = {"source": "cifar-100", "profile": {"kind": "exponential", "largest": 500}}
    sizes = class_sizes(ProfileSpec(kind="exponential", largest=500), [400] * 100, 0)
    counts = {None: None, "all": sizes, "some": np.minimum(sizes, 400)}[distinct]
    records = [trial(None, sizes=sizes), trial(0, sizes=sizes)]
    baseline, best = (replace(each, classes=classes(sizes, counts)) for each in records)
    page = write_report("s", [study(trials=[best], baseline=baseline, best=(0,), data=data)], tmp_path)[0].read_text()
    assert ("0.4435" in page) == (distinct == "all")


def test_published_accuracies_need_the_same_long_tail():
    cifar = DataSpec(source="cifar-10")

    def published(data=cifar, num_classes=10, **profile):
        sizes = class_sizes(ProfileSpec(kind="exponential", **profile), [4950] * num_classes, 0)
        return published_accuracy(data, classes(sizes, sizes))

    assert published(largest=5000) == 0.7876
    assert published(largest=1000) is published(largest=5000, factor=0.1) is None
    assert published() is published(largest=5000, num_classes=9) is None  # held-out images, a class left out
    assert published(DataSpec(), largest=5000) is published(DataSpec(source="cifar-10", nuisance="rotation")) is None
    assert published(DataSpec(source="cifar-100"), 100, largest=500) == 0.4435
