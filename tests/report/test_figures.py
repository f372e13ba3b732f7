import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gitdist.report.comparison import Report
from gitdist.report.figures.class_size import class_size_figures
from gitdist.report.figures.parameter import parameter_figures
from gitdist.report.figures.per_class import per_class_figures
from gitdist.report.figures.search import importance_figures, parallel_figures, surface_figures
from gitdist.report.figures.studies import cost_figures, sample_pictures
from gitdist.report.figures.style import WIDTH, inline_svg, plain, round_numbers, style_of
from tests.report.studies import study, trial

SPACE = {
    "threshold": {"int": [10, 100], "log": True},
    "fraction": {"float": [0.1, 0.9]},
    "sampler": {"choice": ["class-balanced", "square-root", "effective-number"]},
}


def searched(num_trials=12):
    """A study in which only the fraction matters."""
    draws = np.random.default_rng(0)
    points = [
        {
            "threshold": int(draws.integers(10, 101)),
            "fraction": float(draws.uniform(0.1, 0.9)),
            "sampler": SPACE["sampler"]["choice"][at % 3],
        }
        for at in range(num_trials)
    ]
    trials = [trial(at, point, accuracy=point["fraction"], test=False) for at, point in enumerate(points)]
    best = max(range(num_trials), key=lambda at: points[at]["fraction"])
    return study(space=SPACE, trials=trials, best=(best,), baseline=trial(None, accuracy=0.4, test=False))


def swept():
    """A study of methods and thresholds, each with two seeds."""
    space = {"threshold": {"choice": [20, 60, None]}, "seed": {"choice": [0, 1]}}
    points = [{"threshold": k, "seed": seed} for k in (20, 60, None) for seed in (0, 1)]
    trials = [trial(at, point, accuracy=0.5 + 0.01 * at) for at, point in enumerate(points)]
    return study(space=space, trials=trials, baseline=trial(None))


def only(figures, *studies, **arguments):
    """Return the one figure that a function of ``SECTIONS`` draws of studies."""
    (picture,) = figures(Report(studies), **arguments)
    return picture.figure


def by_metric(record, field):
    """Return the figures of all metrics against a field, by the name of the metric in their file names."""
    pictures = parameter_figures(Report([record]), field=field)
    return {picture.name.partition("-by-")[0]: picture.figure for picture in pictures}


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_lines_of_a_figure_against_class_size():
    (axis,) = only(class_size_figures, swept(), metric="ekld").axes
    assert axis.get_xscale() == "log" and axis.get_ylabel() == "eKLD (nats)"
    assert axis.get_xlabel() == "class size (training images)"
    assert [line.get_label() for line in axis.lines] == ["baseline", "K 20", "K 60", "K all"]
    assert list(axis.lines[0].get_xdata()) == [200, 100, 50, 20, 5]
    assert only(class_size_figures, swept(), metric="consistency").axes[0].get_ylabel() == "consistency (0..1)"


def test_a_metric_that_was_not_measured_makes_no_figure():
    record = swept()
    bare = [
        replace(
            each,
            splits={
                split: replace(m, per_class={"accuracy": m.per_class["accuracy"]}) for split, m in each.splits.items()
            },
        )
        for each in record.trials
    ]
    assert not list(class_size_figures(Report([replace(record, trials=tuple(bare), baseline=None)]), "ekld"))


def test_a_swept_threshold_is_a_line_that_ends_with_all_classes():
    figure = by_metric(swept(), "threshold")["balanced-accuracy"]
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["20", "60", "all"]
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "class-size threshold K (images)"
    (container,) = axis.containers
    assert container.lines[0].get_ydata().tolist() == pytest.approx([0.505, 0.525, 0.545])
    assert set(legend(figure)) == {"baseline", "trials"}
    assert not by_metric(swept(), "fraction")


def test_a_legend_has_every_label():
    names = ["_plain", "GIT"]
    points = [{"method": name, "threshold": k} for name in names for k in (20, 60)]
    space = {"method": {"choice": names}, "threshold": {"choice": [20, 60]}}
    record = study(
        space=space, trials=[trial(at, point) for at, point in enumerate(points)], methods={n: {} for n in names}
    )
    settings = [f"{name}, K {k}" for name in names for k in (20, 60)]
    assert legend(only(class_size_figures, record, metric="ekld")) == settings
    assert legend(only(per_class_figures, record)) == settings
    assert legend(by_metric(record, "threshold")["ekld"]) == names


def test_scattered_trials_are_points():
    (axis,) = by_metric(searched(), "fraction")["ekld"].axes
    assert len(axis.lines[0].get_xdata()) == 12 and axis.lines[0].get_linestyle() == "None"


@pytest.mark.parametrize("num_classes", [10, 49, 100])
def test_names_of_classes_do_not_overlap(num_classes):
    sizes = [max(5, 4828 // (at + 1) ** 2) for at in range(num_classes)]
    record = study(trials=[trial(0, sizes=sizes)], baseline=trial(None, sizes=sizes))
    figure = only(per_class_figures, record)
    renderer = drawn(figure)
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].get_yticklabels()]
    assert len(boxes) == {10: 10, 49: 49, 100: 20}[num_classes]
    assert not any(one.overlaps(other) for one, other in zip(boxes, boxes[1:], strict=False))
    assert figure.get_size_inches()[0] == WIDTH


def test_no_figure_of_classes_whose_sizes_change_between_versions():
    data = {"source": "digits", "nuisance": "background"}
    studies = [
        study(f"s{v}", trials=[trial(0, sizes=sizes)], labels={"version": v}, data={**data, "version": v})
        for v, sizes in enumerate(((50, 20, 5), (5, 50, 20)))
    ]
    assert not list(per_class_figures(Report(studies)))


def test_the_most_important_field_is_the_first_bar():
    (axis,) = only(importance_figures, searched(40)).axes
    assert axis.get_xlabel() == "share of importance (sum 1)"
    assert axis.get_yticklabels()[0].get_text() == "fraction"
    shares = [bar.get_width() for bar in axis.patches]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert not list(importance_figures(Report([searched(5)]))) and not list(importance_figures(Report([swept()])))


def test_parallel_coordinates_have_one_line_per_trial():
    (axis,) = only(parallel_figures, searched()).axes
    lines = [line for line in axis.lines if list(line.get_ydata()) == [0, 1, 2, 3]]
    assert len(lines) == 12 and sum(line.get_linewidth() > 2 for line in lines) == 1
    assert not list(parallel_figures(Report([searched(3)])))


def test_contours_need_points_that_are_not_on_one_line():
    figure = only(surface_figures, searched())
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "augmentation fraction p (share of a batch)",
        "balanced accuracy (0..1)",
    ]
    drawn(figure)
    in_line = [trial(n, {"threshold": 10, "fraction": n / 20}, accuracy=n / 20) for n in range(2, 12)]
    diagonal = [trial(n, {"threshold": 10 + n, "fraction": n / 20}, accuracy=n / 20) for n in range(2, 12)]
    linear = {**SPACE, "threshold": {"int": [10, 100]}}
    for record in (searched(7), swept(), study(space=SPACE, trials=in_line), study(space=linear, trials=diagonal)):
        assert not list(surface_figures(Report([record])))


def test_costs_have_units():
    summary = {"trained_epochs": 10, "shared_epochs": 5, "training_s": 120.0, "evaluating_s": 30.0}
    assert [axis.get_xlabel() for axis in only(cost_figures, replace(swept(), summary=summary)).axes] == [
        "epochs",
        "minutes",
    ]
    assert not list(cost_figures(Report([swept()])))


def test_samples_are_shown_once():
    studies = [
        replace(study(f"{draws}{version}", labels={"draws": draws, "data.version": version}), samples=samples)
        for draws, version, samples in (("a", 0, b"1"), ("a", 1, b"2"), ("b", 0, b"1"), ("c", 0, b"3"), ("d", 0, None))
    ]
    assert [(each.name, each.figure) for each in sample_pictures(Report(studies))] == [
        ("samples-a0", b"1"),
        ("samples-c0", b"3"),
    ]


def test_a_page_gives_a_figure_its_own_ink_and_each_drawing_is_the_same():
    svgs = [picture.svg() for _ in range(2) for picture in class_size_figures(Report([swept()]), "ekld")]
    assert svgs[0] == svgs[1]
    inline = inline_svg(svgs[0], "a &amp; b")
    assert inline.startswith('<svg role="img" aria-label="a &amp; b"') and "currentColor" in inline
    assert "#010203" not in inline and "<metadata" not in inline and "<g id=" not in inline
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', inline))
    assert used and used <= set(re.findall(r' id="([^"]+)"', inline))


def test_styles_differ_in_grey_print_too():
    styles = [style_of(index) for index in range(35)]
    assert len({tuple(style.values()) for style in styles}) == 35
    assert all(one["marker"] != other["marker"] for one, other in zip(styles, styles[1:], strict=False))


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (5, 100, [5, 10, 20, 50, 100]),
        (5, 5000, [10, 30, 100, 300, 1000, 3000]),
        (1, 99_999, [1, 10, 100, 1000, 10_000]),
    ],
)
def test_round_numbers(low, high, found):
    assert round_numbers(low, high) == found


def test_text_is_drawn_literally():
    assert plain("cost $5, $6") == r"cost \$5, \$6" and plain("あ é") == "? é"
