"""Stores and loads campaigns: studies that are run and reported together."""

from pathlib import Path

import yaml

from gitdist.disk import write_atomic
from gitdist.errors import StudyError, first_line
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import parse_plan
from gitdist.spec.paths import absolute_paths
from gitdist.study.checks import check_services
from gitdist.study.compatibility import check_started, load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results


def store_campaign(results: Results, campaign: Campaign) -> None:
    """Store a campaign and the names of its studies, for later commands and other programs.

    Raises:
        StudyError: a study has the campaign's name, or one of its studies was started with other settings; nothing is
            written.
        StoreError: the results directory cannot be written.
    """
    paths = check_campaign(results, campaign)
    stored = {
        "name": campaign.name,
        "title": campaign.title,
        "members": [{"study": member.spec.name, "labels": dict(member.labels)} for member in campaign.members],
        "file": dict(campaign.values),
    }
    paths.create()
    write_atomic(paths.campaign, yaml.safe_dump(stored, sort_keys=False, width=120).encode())
    paths.push(paths.campaign)


def check_campaign(results: Results, campaign: Campaign) -> StudyPaths:
    """Refuse what ``store_campaign`` refuses, and return the campaign's paths; write nothing."""
    paths = StudyPaths.at(results, campaign.name)
    paths.pull()
    paths.check_readable()
    if paths.spec.exists():
        raise StudyError(f"'{campaign.name}' in {results} is a single study, not this campaign", remedy="rename")
    paths.check_writable()
    for member in campaign.members:
        check_services(member.spec, paths.results)
        _check_started(StudyPaths.at(results, member.spec.name), member.spec)
    return paths


def refuse_campaign(paths: StudyPaths) -> None:
    """Refuse a study that has the name of a campaign."""
    if paths.campaign.exists():
        raise StudyError(
            f"'{paths.name}' in {paths.results} is a campaign, so a single study needs another name", remedy="rename"
        )


def find_study(results: Results, name: str) -> tuple[StudyPaths, StudySpec]:
    """Return the files and the stored spec of a study.

    Raises:
        StudyError: there is no such study, its stored spec is damaged, or it is a campaign.
    """
    campaign = load_campaign(results, name)
    if campaign is not None:
        names = ", ".join(member.spec.name for member in campaign.members)
        raise StudyError(f"'{name}' is a campaign, but one study is needed; choose one of {names}")
    paths = StudyPaths.at(results, name)
    paths.pull()
    return paths, load_stored_spec(paths)


def load_campaign(results: Results, name: str) -> Campaign | None:
    """Return the campaign of that name; None if there is none."""
    paths = StudyPaths.at(results, name)
    paths.pull()
    paths.check_readable()
    file = paths.campaign
    if not file.exists():
        return None
    try:
        values = yaml.safe_load(file.read_bytes())["file"]
        plan = parse_plan(absolute_paths(values, Path.cwd()), str(file))  # gitdist 0.5 stored relative paths
        if isinstance(plan, Campaign):
            return plan
        reason = "it has no matrix"
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = first_line(error)
    raise StudyError(
        f"{file} must contain the campaign as it was started, but does not ({reason}); run its study file again"
    )


def _check_started(paths: StudyPaths, spec: StudySpec) -> None:
    paths.pull()
    try:
        load_stored_spec(paths)
    except StudyError:  # not started, or damaged: its own run reports that
        return
    check_started(paths, spec)
