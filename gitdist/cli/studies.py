"""Finding a study that was started before, by its name or its file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.spec.file import load_study
from gitdist.study.driver import load_stored_spec
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.paths import StudyPaths


def stored_study(study: str, results: Path) -> tuple[StudyPaths, StudySpec]:
    """Return the files and the stored spec of a study.

    Args:
        study: its name, or the path of its file.
        results: the results directory.

    Raises:
        StudyError: there is no such study.
    """
    name = load_study(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    paths = StudyPaths(results.resolve(), name)
    return paths, load_stored_spec(paths)


@contextmanager
def opened_ledger(paths: StudyPaths, spec: StudySpec) -> Iterator[Ledger]:
    """Open the ledger of a study that has one.

    Raises:
        StudyError: the study has no ledger yet, or it cannot be opened.
    """
    local = {"sqlite": paths.ledger, "journal": paths.journal}.get(spec.ledger)
    if local is not None and not local.exists():
        raise StudyError(
            f"study '{paths.name}' in {paths.results} has not started any trial yet; `gitdist run` goes on with it"
        )
    ledger = Ledger.open(paths, spec)
    try:
        yield ledger
    finally:
        ledger.close()
