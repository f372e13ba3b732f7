import csv
from dataclasses import replace

import numpy as np
import pytest

from gitdist.data.longtail import class_sizes
from gitdist.report.findings import findings
from gitdist.report.grouping import make_panels
from gitdist.report.published import published_figures
from gitdist.report.statistics import Interval
from gitdist.report.table import Table, readable
from gitdist.report.tables import best_table, difference_table, method_table, trials_table
from gitdist.spec import DataSpec, ProfileSpec
from tests.report.studies import study, trial

TABLE = Table(
    "t", "a & b", ["name", "x", "n"], [["50% _a", Interval(-0.5, 0.25, 3), 12_000], ["b", Interval(1.0, None, 1), None]]
)


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
    (panel,) = make_panels([study(space=space, trials=trials)])
    table = method_table(panel)
    assert [row[:2] for row in table.rows] == [["sampler instance", 2], ["sampler class-balanced", 2]]
    assert table.columns[2] == "balanced accuracy (0..1)" and "eKLD (nats)" in table.columns
    assert {"few-shot eKLD (nats)", "consistency (0..1)"} <= set(table.columns)
    (row,) = difference_table(panel).rows
    assert row[:2] == ["sampler class-balanced − sampler instance", 2]
    assert round(row[2].mean, 12) == 0.11


@pytest.mark.parametrize(
    ("kind", "under"),
    [("munit", "the learned generator"), ("identity", "the identity"), ("randaugment", "RandAugment")],
)
def test_ekld_under_the_generator_is_marked_everywhere(kind, under):
    data = {"source": "digits", "nuisance": "none"}
    unknown = study(trials=[trial(0)], best=(0,), data=data, generator={"kind": kind})
    (panel,) = make_panels([unknown])
    marked = f"eKLD under {under} (nats)"
    assert marked in method_table(panel).columns
    assert marked in [row[0] for row in best_table(unknown).rows]
    table = trials_table([unknown])
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
    (panel,) = make_panels(studies)
    names = ["balanced accuracy (0..1)", "few-shot accuracy (0..1)"]
    assert difference_table(panel).columns[2:] == names
    assert "eKLD under each study's own generator (nats)" in method_table(panel).columns
    sentences = findings(studies, [panel])
    assert sentences[1] == (
        "digits: eKLD and consistency were measured under different generators, so settings are not compared in them."
    )
    assert not any("rank correlation" in sentence for sentence in sentences)
    (one,) = make_panels([studies[0], studies[2]])  # each version of a data set has its own generator
    assert "rank correlation" in findings(studies, [one])[1]
    known = [
        replace(each, spec=each.spec.model_copy(update={"data": DataSpec(nuisance="rotation")})) for each in studies
    ]
    assert "eKLD (nats)" in difference_table(make_panels(known)[0]).columns


def test_the_best_trial_is_said_to_stand_beside_a_baseline_only_where_there_is_one():
    alone = study(trials=[trial(0)], best=(0,))
    assert best_table(alone).caption == "s: chosen on validation"
    beside = best_table(replace(alone, baseline=trial(None)))
    assert beside.caption == "s: chosen on validation, beside the same training without augmentation"


def test_a_rank_correlation_lies_between_its_limits():
    cell = Interval(-0.95, 0.2, 3, limits=(-1.0, 1.0))
    assert readable(cell) == "−0.9500 [−1.0000, −0.7500]"
    assert readable(Interval(-1.0, None, 1, limits=(-1.0, 1.0))) == "−1.0000"
    assert Table("t", "", ["r"], [[cell]]).csv().splitlines()[1] == "-0.95,-1.0,-0.75"


def test_published_figures_are_of_the_very_same_long_tail():
    cifar = DataSpec(source="cifar-10")

    def published(data=cifar, num_classes=10, **profile):
        spec = ProfileSpec(kind="exponential", **profile)
        return published_figures(data, np.array(class_sizes(spec, [4950] * num_classes, 0)))

    (figure,) = published(largest=5000)
    assert (figure.method, figure.balanced_accuracy) == ("CE+DRS+GIT", 0.7876)
    assert published(largest=1000) == published(largest=5000, factor=0.1) == ()
    assert published() == published(largest=5000, num_classes=9) == ()  # held-out images, a class left out
    assert published(DataSpec(), largest=5000) == published(DataSpec(source="cifar-10", nuisance="rotation")) == ()
    (figure,) = published(DataSpec(source="cifar-100"), 100, largest=500)
    assert figure.balanced_accuracy == 0.4435
