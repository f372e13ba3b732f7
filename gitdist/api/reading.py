"""Opens a study for one access from Python."""

from collections.abc import Iterator
from contextlib import contextmanager

from gitdist.logging import restoring_levels
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.study import Study


@contextmanager
def reading(paths: StudyPaths) -> Iterator[Study]:
    """Open a started study as it is now, for reading."""
    with restoring_levels(), paths.results.rewriting_errors():
        paths.pull()
        with Study.open(paths, load_stored_spec(paths)) as study:
            yield study
