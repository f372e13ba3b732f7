"""Finds a study, and opens it for one access from Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitdist.errors import SpecError
from gitdist.input_file import expand_home
from gitdist.logging import restoring_levels
from gitdist.spec.study import check_name
from gitdist.study.campaign import find_study
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import open_results
from gitdist.study.study import Study


def find_files(path: str | Path) -> StudyPaths:
    """Return the files of the study at ``RESULTS/NAME``; see ``gitdist.load_study``."""
    root, name = _split(path)
    results = open_results(root)
    results.connect()
    with results.rewriting_errors():
        return find_study(results, name)[0]


@contextmanager
def reading(paths: StudyPaths) -> Iterator[Study]:
    """Open a started study as it is now, for reading."""
    with restoring_levels(), paths.results.rewriting_errors():
        paths.pull()
        with Study.open(paths, load_stored_spec(paths)) as study:
            yield study


def _split(path: str | Path) -> tuple[str, str]:
    """Return results and name of a study's path."""
    if "://" in str(path):
        root, _, name = str(path).rstrip("/").rpartition("/")
    else:
        directory = expand_home(path).absolute()
        root, name = str(directory.parent), directory.name
    try:
        return root, check_name(name)
    except ValueError as error:
        raise SpecError(f"{error}, but it is '{name}'; pass RESULTS/NAME") from None
