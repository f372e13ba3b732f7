"""The report: one HTML page that needs nothing else, each figure as PNG, SVG and PDF, each table as CSV and LaTeX.

The page starts with the answer and the setting to copy; see ``SECTIONS`` for what follows.
"""

import base64
import itertools
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from gitdist import __version__
from gitdist.disk import write_atomic
from gitdist.errors import StoreError, StudyError
from gitdist.report import tables
from gitdist.report.answer import Answer, answers
from gitdist.report.comparison import Report
from gitdist.report.figures.style import Picture, inline_svg
from gitdist.report.findings import counted, few_trials_notes, findings, progress
from gitdist.report.records import ReportedStudy
from gitdist.report.sections import OPEN, SECTIONS
from gitdist.report.statistics import Interval

PAGE = "index.html"

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
    "baseline": "the training that the study's trial fields describe, without augmentation",
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
        notes = few_trials_notes(report) if heading == "Search" else []
        if blocks or notes:
            sections[heading] = _section(heading, blocks, notes, files)
    files[PAGE] = _page(title, report, sections).encode()
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


def _page(title: str, report: Report, sections: Mapping[str, str]) -> str:
    style = Path(__file__).with_name("style.css").read_text()
    found = answers(report)
    begin = "".join(_answer(answer, named=len(found) > 1) for answer in found)
    status = "".join(f"<li>{escape(line)}</li>" for line in progress(report))
    more = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(report))
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in _GLOSSARY.items())
    details = _folded("More findings", "", f"<ul>{more}</ul>") if more else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n{begin}<ul class="status">{status}</ul>\n'
        f"{''.join(sections.values())}{details}{_folded('Glossary', '', f'<dl>{terms}</dl>')}"
        f"<footer>Made by gitdist {escape(__version__)}</footer>\n</main>\n</body>\n</html>\n"
    )


def _answer(answer: Answer, named: bool) -> str:
    """Return an answer; ``named`` puts the data set or the study before it."""
    about = f"<h2>{escape(answer.about)}</h2>" if named else ""
    first, *others = answer.sentences
    text = f'<p class="lead">{_code(first)}</p>' + (f"<p>{_code(' '.join(others))}</p>" if others else "")
    setting = ""
    if answer.setting is not None:
        setting = f"<p>Its fields in a study file:</p><pre><code>{escape(answer.setting)}</code></pre>"
    return f'<div class="answer"><div>{about}{text}</div><div>{setting}</div></div>\n'


def _code(sentence: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(sentence))


def _section(
    heading: str, blocks: Sequence[Picture | tables.Table], notes: Sequence[str], files: dict[str, bytes]
) -> str:
    """Return a section and add the files of its figures and tables to ``files``; pictures in a row are a grid."""
    inner = "".join(f'<p class="caption">{escape(note)}</p>\n' for note in notes)
    for is_picture, group in itertools.groupby(blocks, lambda block: isinstance(block, Picture)):
        parts = "".join(
            _picture(block, files) if isinstance(block, Picture) else _table(block, files) for block in group
        )
        inner += f'<div class="figures">{parts}</div>\n' if is_picture else parts
    if heading in OPEN:
        return f'<section id="{_anchor(heading)}"><h2>{escape(heading)}</h2>\n{inner}</section>\n'
    num_pictures = sum(isinstance(block, Picture) for block in blocks)
    counts = {"figure": num_pictures, "table": len(blocks) - num_pictures}
    return _folded(heading, ", ".join(counted(count, noun) for noun, count in counts.items() if count), inner)


def _folded(heading: str, counts: str, inner: str) -> str:
    return (
        f'<section id="{_anchor(heading)}"><details><summary><h2>{escape(heading)}</h2> '
        f"<span>{counts}</span></summary>\n{inner}</details></section>\n"
    )


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
        if picture.phone is not None and (narrow := picture.phone.svg()) is not None:
            shown = f'<div class="desktop">{shown}</div><div class="phone">{inline_svg(narrow, caption)}</div>'
            kind = ' class="wide"'
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
        "<tr>" + "".join(f"<td{kind}>{_cell(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<p class="caption">{escape(table.caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _cell(cell: tables.Cell) -> str:
    """Return a cell for the page: the width of an interval is below its mean, so that more columns fit."""
    mean, sign, width = escape(tables.format_cell(cell)).partition(" ± ")
    return f"{mean}<br><small>± {width}</small>" if sign and isinstance(cell, Interval) else mean + sign + width


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
