"""The report as one HTML page that needs nothing else: inline figures and style, no scripts, no links outwards."""

import base64
import re
from collections.abc import Sequence
from html import escape

from gitdist import __version__
from gitdist.report.figures.style import inline_svg
from gitdist.report.sections import Picture, Section
from gitdist.report.style_sheet import STYLE
from gitdist.report.table import Table

_TERMS = {
    "eKLD": (
        "expected Kullback-Leibler divergence between a classifier's answers before and after the nuisance, in nats; "
        "0 = invariant"
    ),
    "eKLD where right": "eKLD over the images answered rightly; a class that is never answered looks invariant",
    "balanced accuracy": "mean over classes of the accuracy on each",
    "many-, medium-, few-shot": "classes with many, some and few training images",
    "consistency": "share of transformed images that get the answer of the untransformed image",
    "replicate": (
        "a training of the same setting with another seed (its own, the generator's or the stream's), or on another "
        "version of the data"
    ),
    "±": (
        "half of the 95 % interval of the mean over replicates (Student's t), unless the sentence says standard error; "
        "without it there is one replicate"
    ),
    "[low, high]": "the ends of such an interval of a rank correlation, cut off at −1 and 1",
    "baseline": "the same training without augmentation",
    "standard error": (
        "of a metric of one trained classifier, over the choice of the split's images; images of one group (object, "
        "patient, scene) count as one observation. It contains no variance of seeds, and not that the best trial is "
        "the best of several on validation. For a gap it is √(best² + baseline²), as if both were measured on "
        "different images, which is conservative. With few images it can be too small: 0 if every class is answered "
        "all right or all wrong"
    ),
}


def make_page(title: str, sentences: Sequence[str], sections: Sequence[Section], drawn: dict[str, str]) -> str:
    """Return the page.

    Args:
        title: its heading.
        sentences: what the numbers say, the first things to read.
        sections: what follows.
        drawn: SVG text of every figure, by picture name.
    """
    contents = "".join(f'<li><a href="#{_anchor(each.title)}">{escape(each.title)}</a></li>' for each in sections)
    body = "".join(_section(section, drawn) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{_sentences(sentences)}"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n{body}{_glossary()}'
        f"<footer>Made by gitdist {escape(__version__)}</footer>\n</main>\n</body>\n</html>\n"
    )


def _sentences(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="findings">{items}</ul>\n'


def _section(section: Section, drawn: dict[str, str]) -> str:
    blocks, pictures = [], ""
    for block in section.blocks:
        if isinstance(block, Picture):
            pictures += _picture(block, drawn)
            continue
        blocks += [_row_of(pictures), _table(block)]
        pictures = ""
    inner = "".join([*blocks, _row_of(pictures)])
    kind = ""
    if section.folded:
        inner, kind = f"<details><summary>Show</summary>{inner}</details>", ' class="folded"'
    return f'<section id="{_anchor(section.title)}"{kind}><h2>{escape(section.title)}</h2>\n{inner}</section>\n'


def _row_of(pictures: str) -> str:
    return f'<div class="figures">{pictures}</div>\n' if pictures else ""


def _picture(picture: Picture, drawn: dict[str, str]) -> str:
    caption, kind = escape(picture.caption), ""
    if isinstance(picture.figure, bytes):
        data = base64.b64encode(picture.figure).decode()
        shown, kind = f'<img alt="{caption}" src="data:image/png;base64,{data}">', ' class="wide"'
    else:
        shown = inline_svg(drawn[picture.name], caption)
    return f"<figure{kind}>{shown}<figcaption>{caption}</figcaption></figure>\n"


def _table(table: Table) -> str:
    kinds = ["" if table.is_text(place) else ' class="number"' for place in range(len(table.columns))]
    header = "".join(f"<th{kind}>{_header(name)}</th>" for kind, name in zip(kinds, table.columns, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, table.shown(row), strict=True))
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<p class="caption">{escape(table.caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )


def _header(name: str) -> str:
    """Return a column's name, its unit on a line of its own."""
    title, bracket, unit = name.partition(" (")
    return escape(title) + (f"<br>({escape(unit)}" if bracket else "")


def _glossary() -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(told)}</dd>" for term, told in _TERMS.items())
    return f"<section><h2>Words</h2><dl>{terms}</dl></section>\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
