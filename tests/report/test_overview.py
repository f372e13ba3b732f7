import io
from dataclasses import replace

import numpy as np
from PIL import Image

from gitdist.generator.grid import CELL, GAP, LABEL_WIDTH
from gitdist.report.comparison import Report
from gitdist.report.figures.overview import overview_figures
from tests.report.studies import SIZES, study, trial

METHODS = {
    "CE": {"sampler": "class-balanced", "fraction": 0},
    "GIT": {"sampler": "class-balanced"},
    "GIT (K)": {"sampler": "class-balanced", "threshold": 40},
    "ERM": {"fraction": 0},
    "oracle": {"fraction": 0, "true_nuisance": True},
}


def samples():
    """The picture of a generator whose images of class c are all of shade 10 c."""
    step = CELL + GAP
    picture = np.full((len(SIZES) * step, LABEL_WIDTH + 9 * step + GAP, 3), 255, dtype=np.uint8)
    for row in range(len(SIZES)):
        for column in range(9):
            left = LABEL_WIDTH + column * step + (GAP if column else 0)
            picture[row * step : row * step + CELL, left : left + CELL] = 10 * row
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    return content.getvalue()


def compared(**more):
    accuracies = {"CE": 0.5, "GIT": 0.6, "GIT (K)": 0.7, "ERM": 0.55, "oracle": 0.9}
    trials = [
        trial(n, {"method": name}, accuracy=accuracies[name], augmented=name.startswith("GIT"))
        for n, name in enumerate(METHODS)
    ]
    space = {"method": {"choice": list(METHODS)}}
    return replace(study(space=space, trials=trials, methods=METHODS), **more)


def only(record):
    (picture,) = overview_figures(Report([record]))
    return picture


def labels(axis):
    return [line.get_label() for line in axis.lines]


def test_draws_are_next_to_the_settings_that_tell_the_story():
    picture = only(compared(samples=samples()))
    left, right = picture.figure.axes
    assert labels(right) == ["CE", "GIT (K)", "ERM", "oracle"] and "4 of 5 settings" in picture.caption
    assert [text.get_text() for text in left.get_yticklabels()] == [f"c{n}\n{SIZES[n]} images" for n in range(5)]
    shades = [image.get_array()[0, 0, 0] for image in left.images]
    assert shades == [10 * row for row in range(5) for _ in range(5)]
    assert picture.name == "overview" and picture.png() and picture.svg() and picture.pdf()


def test_without_draws_there_are_the_curves():
    picture = only(compared())
    assert picture.phone is None  # the page shows it as wide as other figures
    assert len(picture.figure.axes) == 1 and len(picture.figure.axes[0].lines) == 4


def test_without_ekld_there_are_the_draws():
    record = study(trials=[trial(0, sizes=(5,) * 5)])  # one class size is no curve
    picture = only(replace(record, samples=samples()))
    assert len(picture.figure.axes) == 1 and picture.figure.axes[0].images


def test_on_a_phone_the_halves_are_below_each_other():
    picture = only(compared(samples=samples()))
    wide, narrow = (each.figure.get_size_inches() for each in (picture, picture.phone))
    assert wide[0] > 2 * narrow[0] * 0.99 and narrow[1] > wide[1]


def test_the_curves_of_a_confirmed_study_are_said_to_be_of_the_search():
    confirmed = only(compared(confirmations=({"answer": "better"},)))
    assert confirmed.caption.endswith("One training per curve, of the search, not of its confirmation.")
    assert only(compared()).caption.endswith("One training per curve.")
