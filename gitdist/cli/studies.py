"""Finds a started study by its name or its file."""

from gitdist.errors import SpecError
from gitdist.input_file import expand_home
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import load_plan
from gitdist.spec.study import check_name
from gitdist.study.campaign import find_study, load_campaign
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results


def stored_study(study: str, results: Results) -> tuple[StudyPaths, StudySpec]:
    """Return the files and the stored spec of a study that is given by its name or its file.

    Raises:
        SpecError: it is neither a name nor a file.
        StudyError: as ``find_study``.
    """
    return find_study(results, stored_name(study))


def stored_plan(study: str, results: Results) -> StudySpec | Campaign:
    """Return the stored spec of a study, or the campaign of that name or file."""
    return load_campaign(results, stored_name(study)) or stored_study(study, results)[1]


def stored_name(study: str) -> str:
    """Return the name of a study or campaign that is given by its name or its file (at its first scale)."""
    if study.endswith((".yaml", ".yml")):
        return load_plan(expand_home(study)).name
    try:
        return check_name(study)
    except ValueError as error:
        raise SpecError(f"{error}, but it is '{study}'; pass the name, or the path of its .yaml file") from None
