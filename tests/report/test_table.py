import csv

from gitdist.report.grouping import make_panels
from gitdist.report.published import published_figures
from gitdist.report.statistics import Interval
from gitdist.report.table import Table
from gitdist.report.tables import best_table, difference_table, method_table, trials_table
from gitdist.spec import DataSpec
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


def test_ekld_under_the_generator_is_marked_everywhere():
    unknown = study(trials=[trial(0)], best=(0,), data={"source": "digits", "nuisance": "none"})
    (panel,) = make_panels([unknown])
    marked = "eKLD under the learned generator (nats)"
    assert marked in method_table(panel).columns
    assert marked in [row[0] for row in best_table(unknown).rows]
    table = trials_table([unknown])
    assert table.rows[0][table.columns.index("eKLD under")] == "generator"


def test_published_figures_are_of_the_very_same_long_tail():
    def data(**profile):
        spec = DataSpec(profile={"kind": "exponential", **profile})
        return spec.model_copy(update={"source": "cifar-10"})

    (figure,) = published_figures(data(largest=5000))
    assert (figure.method, figure.balanced_accuracy) == ("CE+DRS+GIT", 0.7876)
    assert published_figures(data(largest=1000)) == published_figures(data(factor=0.1)) == ()
    assert published_figures(DataSpec(profile={"kind": "exponential"})) == ()
