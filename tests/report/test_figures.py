import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gitdist.report.comparison import Report
from gitdist.report.figures.class_size import class_size_figures
from gitdist.report.figures.parameter import parameter_figures
from gitdist.report.figures.per_class import per_class_figures
from gitdist.report.figures.progress import curve_figures, history_figures, timeline_figures
from gitdist.report.figures.search import importance_figures, parallel_figures, slice_figures, surface_figures
from gitdist.report.figures.studies import cost_figures, sample_pictures
from gitdist.report.figures.style import WIDTH, inline_svg, plain, round_numbers, style_of
from gitdist.report.findings import ENOUGH_TRIALS
from gitdist.study.files.times import Span
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


def test_a_long_label_is_wrapped_within_the_figure():
    label = "a method with a name of many words, as no one should give"
    space = {"method": {"choice": [label, "b"]}}
    trials = [trial(at, {"method": name}) for at, name in enumerate((label, "b"))]
    figure = only(class_size_figures, study(space=space, trials=trials, methods={label: {}, "b": {}}), metric="ekld")
    renderer = drawn(figure)
    assert legend(figure)[0].replace("\n", " ") == label
    assert all(text.get_window_extent(renderer).x1 < figure.bbox.x1 for text in figure.legends[0].get_texts())


def test_every_searched_field_has_a_slice_with_a_point_per_trial():
    pictures = {picture.name: picture for picture in slice_figures(Report([searched()]))}
    assert list(pictures) == [f"slice-balanced-accuracy-{field}-s" for field in ("threshold", "fraction", "sampler")]
    assert not by_metric(searched(), "fraction")
    points = {name: picture.figure.axes[0].collections[0].get_offsets() for name, picture in pictures.items()}
    assert {len(each) for each in points.values()} == {12}
    fractions = points["slice-balanced-accuracy-fraction-s"]
    assert fractions[:, 0].tolist() == fractions[:, 1].tolist()
    (strips,) = pictures["slice-balanced-accuracy-sampler-s"].figure.axes
    assert [text.get_text() for text in strips.get_yticklabels()] == SPACE["sampler"]["choice"]
    rows = np.round(points["slice-balanced-accuracy-sampler-s"][:, 1])
    assert rows.tolist() == [at % 3 for at in range(12)]


def ran(num_trials, states=("finished",)):
    """A study whose trials ran two at a time for 90 s each."""
    trials = [
        trial(
            at,
            accuracy=0.5 + 0.01 * at,
            test=False,
            state=states[at % len(states)],
            curve={5: 0.4, 10: 0.5 + 0.01 * at},
            span=Span(1000.0 + 100 * (at // 2), 1090.0 + 100 * (at // 2)),
        )
        for at in range(num_trials)
    ]
    base = trial(None, accuracy=0.4, test=False, curve={5: 0.3, 10: 0.4}, span=Span(900.0, 990.0))
    return study(trials=trials, best=(num_trials - 1,), baseline=base)


def test_learning_curves_mark_the_best_trial_and_the_baseline():
    figure = only(curve_figures, ran(3))
    assert legend(figure) == ["baseline", "best trial (2)", "other trials"]
    curves = [tuple(map(tuple, line.get_data())) for line in figure.axes[0].lines]
    assert curves[-2:] == [((5, 10), (0.3, 0.4)), ((5, 10), (0.4, 0.52))] and len(curves) == 4
    once = [replace(each, curve={10: 0.5}) for each in ran(3).trials]
    assert not list(curve_figures(Report([study(trials=once)])))


def test_the_history_has_the_best_so_far_of_feasible_trials():
    accuracies = (0.5, 0.7, 0.4, 0.6, 0.9)
    trials = [trial(n, accuracy=x, test=False, feasible=n != 1) for n, x in enumerate(accuracies)]
    for direction, best in (("maximize", [0.5, 0.5, 0.6, 0.9]), ("minimize", [0.5, 0.4, 0.4, 0.4])):
        search = {"space": {}, "objective": [{"metric": "val/balanced_accuracy", "direction": direction}]}
        figure = only(history_figures, study(trials=trials, search=search))
        assert legend(figure) == ["trial", "best so far"]
        values, so_far = figure.axes[0].lines
        assert list(values.get_ydata()) == list(accuracies)
        assert list(so_far.get_ydata())[:-1] == best and list(so_far.get_xdata())[:-1] == [0, 2, 3, 4]


def test_a_timeline_has_a_bar_per_trial_and_folds_many():
    record = replace(ran(4, ("finished", "failed")), generator_span=Span(800.0, 890.0))
    figure = only(timeline_figures, record)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["generator", "baseline", "0", "1", "2", "3"]
    assert legend(figure) == ["generator", "finished", "failed"]
    assert [bar.get_x() * 60 for bar in axis.patches] == pytest.approx([0, 100, 200, 200, 300, 300])
    (folded,) = only(timeline_figures, ran(200)).axes
    assert len(folded.patches) == 201 and {round(bar.get_y() + 0.4) for bar in folded.patches} == {0, 1}
    assert not list(timeline_figures(Report([swept()])))


def test_each_mark_shows_trial_setting_and_value():
    (picture,) = [each for each in slice_figures(Report([searched()])) if "-sampler-" in each.name]
    titles = re.findall("<title>(.*?)</title>", picture.svg())
    assert len(titles) == 12 and "<a " not in picture.svg()
    params = searched().trials[3].params
    assert titles[3] == (
        f"trial 3: K {params['threshold']}, p {params['fraction']:.4g}, sampler class-balanced; "
        f"balanced accuracy {params['fraction']:.4g}"
    )


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
    assert not list(importance_figures(Report([swept()])))


def test_parallel_coordinates_have_one_line_per_trial():
    (axis,) = only(parallel_figures, searched()).axes
    lines = [line for line in axis.lines if list(line.get_ydata()) == [0, 1, 2, 3]]
    assert len(lines) == 12 and sum(line.get_linewidth() > 2 for line in lines) == 1
    assert not list(parallel_figures(Report([searched(3)])))


def test_of_many_trials_the_lines_of_the_best_tenth_stand_out():
    (axis,) = only(parallel_figures, searched(200)).axes
    lines = [line for line in axis.lines if list(line.get_ydata()) == [0, 1, 2, 3]]
    clear = [line.get_xdata()[-1] for line in lines if line.get_alpha() == 1.0]
    assert len(lines) == 200 and 20 <= len(clear) <= 21 and min(sorted(clear)[-20:]) > 0.8


def test_contours_need_points_that_are_not_on_one_line():
    figure = only(surface_figures, searched(ENOUGH_TRIALS))
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "augmentation fraction p (share of a batch)",
        "balanced accuracy (0..1)",
    ]
    drawn(figure)
    numbers = range(1, 1 + ENOUGH_TRIALS)
    in_line = [trial(n, {"threshold": 10, "fraction": n / 30}, accuracy=n / 30) for n in numbers]
    diagonal = [trial(n, {"threshold": 10 + n, "fraction": n / 30}, accuracy=n / 30) for n in numbers]
    linear = {**SPACE, "threshold": {"int": [10, 100]}}
    for record in (swept(), study(space=SPACE, trials=in_line), study(space=linear, trials=diagonal)):
        assert not list(surface_figures(Report([record])))


def test_few_trials_have_neither_importance_nor_contours():
    few, enough = Report([searched(ENOUGH_TRIALS - 1)]), Report([searched(ENOUGH_TRIALS)])
    for figures in (importance_figures, surface_figures):
        assert not list(figures(few)) and len(list(figures(enough))) == 1


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
    pictures = [picture for _ in range(2) for picture in class_size_figures(Report([swept()]), "ekld")]
    svgs, pdfs = [picture.svg() for picture in pictures], [picture.pdf() for picture in pictures]
    assert svgs[0] == svgs[1] and pdfs[0] == pdfs[1]
    assert b"/FontFile2" in pdfs[0] and b"/Type3" not in pdfs[0] and b"/URI" not in pdfs[0]
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
