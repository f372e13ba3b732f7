"""A report written: the page, every figure as PNG and SVG, every table as CSV and LaTeX."""

import errno
from collections.abc import Sequence
from pathlib import Path

from gitdist.disk import disk_errors, write_atomic
from gitdist.errors import DiskError, StoreError, StudyError
from gitdist.report.figures.style import png_bytes, svg_text
from gitdist.report.findings import counted, findings
from gitdist.report.grouping import make_panels
from gitdist.report.page import make_page
from gitdist.report.records import StudyRecord
from gitdist.report.sections import Picture, make_sections

PAGE = "index.html"


def write_report(title: str, studies: Sequence[StudyRecord], out: Path) -> list[Path]:
    """Write the report of some studies into ``out`` and return its files, the page first.

    The page is written last, so it shows nothing that is not there.

    Args:
        title: the page's heading.
        studies: what to report.
        out: a directory, made where it is missing; files in it of the report's names are replaced.

    Raises:
        StudyError: there is nothing to show yet.
        StoreError: ``out`` cannot be written.
    """
    panels = make_panels(studies)
    if not panels and not any(study.samples for study in studies if not study.spec.search.total):
        raise StudyError(_nothing(studies))
    sections = make_sections(studies, panels)
    contents: dict[str, bytes] = {}
    drawn: dict[str, str] = {}
    for block in (block for section in sections for block in section.blocks):
        if not isinstance(block, Picture):
            contents[f"tables/{block.name}.csv"] = block.csv().encode()
            contents[f"tables/{block.name}.tex"] = block.latex().encode()
        elif isinstance(block.figure, bytes):
            contents[f"figures/{block.name}.png"] = block.figure
        else:
            drawn[block.name] = svg_text(block.figure, block.name)
            contents[f"figures/{block.name}.svg"] = drawn[block.name].encode()
            contents[f"figures/{block.name}.png"] = png_bytes(block.figure)
    contents[PAGE] = make_page(title, findings(studies, panels), sections, drawn).encode()
    _write(out, contents)
    return [out / PAGE, *(out / name for name in contents if name != PAGE)]


def _write(out: Path, contents: dict[str, bytes]) -> None:
    try:
        with disk_errors(out):
            for name in ("figures", "tables"):
                (out / name).mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                write_atomic(out / name, content)
    except OSError as error:
        raise StoreError(_unwritable(error.filename, error.strerror)) from None
    except DiskError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EROFS:
            raise StoreError(_unwritable(out, cause.strerror)) from None
        raise


def _unwritable(path: Path | str, reason: str | None) -> str:
    return f"the report's directory must be writable, but {path} is not ({reason}); choose another with --out DIR"


def _nothing(studies: Sequence[StudyRecord]) -> str:
    states = [trial.state for study in studies for trial in study.trials]
    there = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no trials"
    names = ", ".join(study.spec.name for study in studies)
    what = counted(len(studies), "study", "studies")
    return (
        f"a report needs a finished trial, but of {what} ({names}) there is: {there}; "
        "run it on, and see how it stands by `gitdist status`"
    )
