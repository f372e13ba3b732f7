"""The report: one HTML page that needs nothing else, each figure as PNG, SVG and PDF, each table as CSV and LaTeX.

``SECTIONS`` is the table of all figures and tables. To add one, write a function that takes the report and yields
``Picture`` or ``Table`` (none if it does not apply), and name it in a section.
"""

import base64
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

from gitdist import __version__
from gitdist.disk import write_atomic
from gitdist.errors import StoreError, StudyError
from gitdist.report import tables
from gitdist.report.comparison import Report
from gitdist.report.figures.class_size import class_size_figures
from gitdist.report.figures.overview import overview_figures
from gitdist.report.figures.parameter import parameter_figures
from gitdist.report.figures.per_class import per_class_figures
from gitdist.report.figures.progress import curve_figures, history_figures, timeline_figures
from gitdist.report.figures.search import importance_figures, parallel_figures, slice_figures, surface_figures
from gitdist.report.figures.studies import cost_figures, sample_pictures
from gitdist.report.figures.style import Picture, inline_svg
from gitdist.report.findings import counted, findings
from gitdist.report.records import ReportedStudy

PAGE = "index.html"

SECTIONS: dict[str, tuple[Callable[[Report], Iterable[Picture | tables.Table]], ...]] = {
    "Overview": (overview_figures,),
    "Settings": (tables.method_tables,),
    "eKLD by class size": (partial(class_size_figures, metric="ekld"), tables.correlation_table),
    "Consistency by class size": (partial(class_size_figures, metric="consistency"),),
    "Paired differences": (tables.difference_tables,),
    "Class-size threshold K": (partial(parameter_figures, field="threshold"),),
    "Augmentation fraction p": (partial(parameter_figures, field="fraction"),),
    "Per-class accuracy": (per_class_figures,),
    "Search": (
        tables.best_tables,
        tables.gap_tables,
        curve_figures,
        history_figures,
        slice_figures,
        importance_figures,
        parallel_figures,
        surface_figures,
    ),
    "Generator samples": (sample_pictures,),
    "Cost": (timeline_figures, cost_figures, tables.cost_table),
    "All trials": (tables.trials_table,),
}
"""The sections of the page by heading, in order; a section is left out if its functions yield nothing."""

_FOLDED = ("All trials",)  # sections that open on demand

_GLOSSARY = {
    "eKLD": (
        "expected Kullback-Leibler divergence between a classifier's predictions before and after the nuisance, in "
        "nats; 0 = invariant"
    ),
    "eKLD where right": (
        "eKLD over the correctly classified images; by eKLD alone, a class that is never predicted looks invariant"
    ),
    "balanced accuracy": "mean of the per-class accuracies",
    "many-, medium-, few-shot": "classes with many, some and few training images",
    "consistency": "share of transformed images that keep the prediction of the untransformed image",
    "replicate": (
        "a training of the same setting with another seed (its own, the generator's or the stream's), or on another "
        "version of the data"
    ),
    "±": (
        "half of the 95 % interval of the mean over replicates (Student's t), unless the text says standard error; "
        "left out for one replicate"
    ),
    "[low, high]": "the ends of such an interval of a rank correlation, cut off at −1 and 1",
    "baseline": "the same training without augmentation",
    "standard error": (
        "of a metric of one trained classifier, over the choice of the split's images; images of one group (object, "
        "patient, scene) count as one observation. It contains neither the variance of seeds nor the fact that the "
        "best trial is the best of several on validation. For a gap it is √(best² + baseline²), as if both were "
        "measured on different images, which is conservative. With few images it can be too small: 0 if each class is "
        "classified all right or all wrong"
    ),
}


def write_report(title: str, studies: Sequence[ReportedStudy], out: Path) -> list[Path]:
    """Write the report of studies into ``out`` and return its files, the page first.

    The page is written last, so it never shows a file that is missing.

    Raises:
        StudyError: no study has anything to show yet.
        StoreError: ``out`` cannot be written.
    """
    report = Report(studies)
    if not report.comparisons and not any(study.samples for study in studies if not study.spec.search.total):
        raise StudyError(_nothing_to_show(studies))
    files: dict[str, bytes] = {}
    sections = {}
    for heading, functions in SECTIONS.items():
        blocks = [block for function in functions for block in function(report)]
        if blocks:
            sections[heading] = _section(heading, blocks, files)
    files[PAGE] = _page(title, findings(report), sections).encode()
    try:
        for name in ("figures", "tables"):
            (out / name).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(out / name, content)
    except OSError as error:
        raise StoreError(f"cannot write the report in {error.filename}: {error.strerror}") from None
    return [out / PAGE, *(out / name for name in files if name != PAGE)]


def _nothing_to_show(studies: Sequence[ReportedStudy]) -> str:
    states = [trial.state for study in studies for trial in study.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no trials"
    names = ", ".join(study.spec.name for study in studies)
    return f"a report needs a finished trial; {counted(len(studies), 'study', 'studies')} ({names}): {counts}"


def _page(title: str, sentences: Sequence[str], sections: Mapping[str, str]) -> str:
    style = Path(__file__).with_name("style.css").read_text()
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    contents = "".join(f'<li><a href="#{_anchor(heading)}">{escape(heading)}</a></li>' for heading in sections)
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in _GLOSSARY.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<ul class="findings">{items}</ul>\n'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n{"".join(sections.values())}'
        f"<section><h2>Glossary</h2><dl>{terms}</dl></section>\n"
        f"<footer>Made by gitdist {escape(__version__)}</footer>\n</main>\n</body>\n</html>\n"
    )


def _section(heading: str, blocks: Sequence[Picture | tables.Table], files: dict[str, bytes]) -> str:
    """Return a section and add the files of its figures and tables to ``files``; pictures in a row are a grid."""
    inner = ""
    for is_picture, group in itertools.groupby(blocks, lambda block: isinstance(block, Picture)):
        parts = "".join(
            _picture(block, files) if isinstance(block, Picture) else _table(block, files) for block in group
        )
        inner += f'<div class="figures">{parts}</div>\n' if is_picture else parts
    if heading in _FOLDED:
        inner = f"<details><summary>Show</summary>{inner}</details>"
    kind = ' class="folded"' if heading in _FOLDED else ""
    return f'<section id="{_anchor(heading)}"{kind}><h2>{escape(heading)}</h2>\n{inner}</section>\n'


def _picture(picture: Picture, files: dict[str, bytes]) -> str:
    caption, kind = escape(picture.caption), ""
    files[f"figures/{picture.name}.png"] = png = picture.png()
    svg = picture.svg()
    if svg is None:
        shown = f'<img alt="{caption}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        kind = ' class="wide"'
    else:
        files[f"figures/{picture.name}.svg"] = svg.encode()
        files[f"figures/{picture.name}.pdf"] = picture.pdf()
        shown = inline_svg(svg, caption)
    return f"<figure{kind}>{shown}<figcaption>{caption}</figcaption></figure>\n"


def _table(table: tables.Table, files: dict[str, bytes]) -> str:
    files[f"tables/{table.name}.csv"] = table.csv().encode()
    files[f"tables/{table.name}.tex"] = table.latex().encode()
    kinds = ["" if table.is_text(index) else ' class="number"' for index in range(len(table.columns))]
    # the unit of a column is on a line of its own
    header = "".join(
        f"<th{kind}>{escape(name).replace(' (', '<br>(', 1)}</th>"
        for kind, name in zip(kinds, table.columns, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(tables.format_cell(cell))}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<p class="caption">{escape(table.caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
