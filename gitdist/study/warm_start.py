"""Copies the trials of another study into the ledger of a new one, whose search starts with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gitdist.errors import SpecError
from gitdist.spec import SearchSpec
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.observations import OBSERVATIONS, describe_disagreement, observe
from gitdist.study.ledger.space import point_plan
from gitdist.study.study import Study


def find_observations(study: Study) -> dict[str, Any] | None:
    """Return what the ledger is to store of ``search.warm_start``; None if there is nothing to store (any more).

    Raises:
        SpecError: the searches of the two studies do not agree.
        StudyError: there is no such study, or it has not started.
    """
    search, ledger = study.spec.search, study.ledger
    if search.warm_start is None or ledger.trials() or ledger.get_attr(OBSERVATIONS) is not None:
        return None
    return observations_for(search, study.paths)


def observations_for(search: SearchSpec, paths: StudyPaths) -> dict[str, Any] | None:
    """Return what a new study stores of ``search.warm_start``; None without one. Errors are those of above."""
    if search.warm_start is None:
        return None
    if point_plan(search) is not None:
        raise SpecError(
            f"search.warm_start has no use: all points of the space are tried, since they are at most search.total "
            f"({search.total}); remove it, or lower search.total"
        )
    other_paths = _paths_of(search.warm_start, paths)
    other_paths.pull()
    with Study.open(other_paths, load_stored_spec(other_paths)) as other:
        if problem := describe_disagreement(search, other.spec.search):
            raise SpecError(f"search.warm_start '{search.warm_start}': {problem}; correct it, or remove warm_start")
        trials = observe(search, other.spec.search, other.ledger.merged_trials())
    return {"study": search.warm_start, "trials": trials}


def record_observations(ledger: Ledger, observations: Mapping[str, Any]) -> str:
    """Store what ``find_observations`` has returned, and return a line about it."""
    ledger.set_attr(OBSERVATIONS, observations)
    return f"the search starts with {len(observations['trials'])} trials of study '{observations['study']}'"


def _paths_of(name: str, paths: StudyPaths) -> StudyPaths:
    """Return the paths of the study that is named, or whose directory is."""
    if "/" not in name:
        return StudyPaths.at(paths.results, name)
    directory = Path(name)
    return StudyPaths.at(directory.parent, directory.name)
