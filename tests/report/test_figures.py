import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gitdist.report.figures.class_size import class_size_figure
from gitdist.report.figures.cost import cost_figure
from gitdist.report.figures.importance import importance_figure
from gitdist.report.figures.parallel import parallel_figure
from gitdist.report.figures.parameter import parameter_figure
from gitdist.report.figures.per_class import per_class_figure
from gitdist.report.figures.style import WIDTH, inline_svg, plain, round_numbers, style_of, svg_text
from gitdist.report.figures.surface import surface_figure
from gitdist.report.grouping import make_panels
from gitdist.report.importance import importances
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


def panel_of(record):
    return make_panels([record])[0]


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_lines_of_a_figure_against_class_size():
    panel = panel_of(swept())
    figure = class_size_figure(panel, "ekld")
    (axis,) = figure.axes
    assert axis.get_xscale() == "log" and axis.get_ylabel() == "eKLD (nats)"
    assert axis.get_xlabel() == "class size (training images)"
    assert [line.get_label() for line in axis.lines] == ["baseline", "K 20", "K 60", "K all"]
    assert list(axis.lines[0].get_xdata()) == [200, 100, 50, 20, 5]
    assert class_size_figure(panel, "consistency").axes[0].get_ylabel() == "consistency (0..1)"


def test_a_measure_that_is_not_there_makes_no_figure():
    record = swept()
    bare = [
        replace(
            each,
            measures={
                split: replace(m, per_class={"accuracy": m.per_class["accuracy"]}) for split, m in each.measures.items()
            },
        )
        for each in record.trials
    ]
    assert class_size_figure(panel_of(replace(record, trials=tuple(bare), baseline=None)), "ekld") is None


def test_a_swept_threshold_is_a_line_and_all_classes_are_its_end():
    figure = parameter_figure(panel_of(swept()), "threshold", "balanced_accuracy")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["20", "60", "all"]
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "class-size threshold K (images)"
    (container,) = axis.containers
    assert container.lines[0].get_ydata().tolist() == pytest.approx([0.505, 0.525, 0.545])
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert labels == {"baseline", "trials"}
    assert parameter_figure(panel_of(swept()), "fraction", "balanced_accuracy") is None


def test_a_legend_has_every_label():
    names = ["_plain", "GIT"]
    points = [{"method": name, "threshold": k} for name in names for k in (20, 60)]
    space = {"method": {"choice": names}, "threshold": {"choice": [20, 60]}}
    record = study(
        space=space, trials=[trial(at, point) for at, point in enumerate(points)], methods={n: {} for n in names}
    )
    panel = panel_of(record)
    figures = {
        class_size_figure(panel, "ekld"): [f"{name}, K {k}" for name in names for k in (20, 60)],
        per_class_figure(panel): [f"{name}, K {k}" for name in names for k in (20, 60)],
        parameter_figure(panel, "threshold", "ekld"): names,
    }
    for figure, labels in figures.items():
        assert [text.get_text() for text in figure.legends[0].get_texts()] == labels


def test_scattered_trials_are_points():
    (axis,) = parameter_figure(panel_of(searched()), "fraction", "ekld").axes
    assert len(axis.lines[0].get_xdata()) == 12 and axis.lines[0].get_linestyle() == "None"


@pytest.mark.parametrize("num_classes", [10, 49, 100])
def test_names_of_classes_do_not_overlap(num_classes):
    sizes = [max(5, 4828 // (at + 1) ** 2) for at in range(num_classes)]
    record = study(trials=[trial(0, sizes=sizes)], baseline=trial(None, sizes=sizes))
    figure = per_class_figure(panel_of(record))
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
    assert per_class_figure(make_panels(studies)[0]) is None


def test_what_matters_is_found():
    shares = importances(searched(40))
    assert next(iter(shares)) == "fraction" and sum(shares.values()) == pytest.approx(1)
    assert importances(searched(5)) is None and importances(swept()) is None
    (axis,) = importance_figure("s", shares).axes
    assert axis.get_xlabel() == "share of importance (sum 1)"


def test_parallel_coordinates_have_a_line_a_trial():
    (axis,) = parallel_figure(searched()).axes
    lines = [line for line in axis.lines if list(line.get_ydata()) == [0, 1, 2, 3]]
    assert len(lines) == 12 and sum(line.get_linewidth() > 2 for line in lines) == 1
    assert parallel_figure(searched(3)) is None


def test_a_surface_needs_trials_apart():
    figure = surface_figure(searched())
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "augmentation fraction p (share of a batch)",
        "balanced accuracy (0..1)",
    ]
    drawn(figure)
    assert surface_figure(searched(7)) is None and surface_figure(swept()) is None
    in_line = [trial(n, {"threshold": 10, "fraction": n / 20}, accuracy=n / 20) for n in range(2, 12)]
    assert surface_figure(study(space=SPACE, trials=in_line)) is None


def test_costs_have_units():
    costs = {"trained_epochs": 10, "shared_epochs": 5, "training_s": 120.0, "evaluating_s": 30.0}
    assert [axis.get_xlabel() for axis in cost_figure(costs).axes] == ["epochs", "minutes"]


def test_a_page_gives_a_figure_its_own_ink_and_each_drawing_is_the_same():
    svgs = [svg_text(class_size_figure(panel_of(swept()), "ekld"), "name") for _ in range(2)]
    assert svgs[0] == svgs[1]
    inline = inline_svg(svgs[0], "a &amp; b")
    assert inline.startswith('<svg role="img" aria-label="a &amp; b"') and "currentColor" in inline
    assert "#010203" not in inline and "<metadata" not in inline and "<g id=" not in inline
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', inline))
    assert used and used <= set(re.findall(r' id="([^"]+)"', inline))


def test_styles_differ_in_grey_print_too():
    styles = [style_of(index) for index in range(35)]
    assert len(set(styles)) == 35
    assert all(one.marker != other.marker for one, other in zip(styles, styles[1:], strict=False))


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


def test_text_is_drawn_as_it_stands():
    assert plain("cost $5, $6") == r"cost \$5, \$6" and plain("あ é") == "? é"
