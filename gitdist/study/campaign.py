"""Campaigns in a results directory: which studies are run and reported together."""

from pathlib import Path

import yaml

from gitdist.disk import disk_trouble, write_atomic
from gitdist.errors import StudyError, first_line
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import parse_plan
from gitdist.study.paths import StudyPaths

_FILE = "campaign.yaml"


def settle_campaign(results: Path, campaign: Campaign) -> None:
    """Note a campaign and the studies that it has, for later commands and other programs.

    Raises:
        StudyError: there is a study of the campaign's name.
        DiskTrouble: the disk does not take it.
    """
    paths = StudyPaths(results, campaign.name)
    if paths.spec.exists():
        raise StudyError(f"'{campaign.name}' in {results} is a single study; give the campaign another name")
    noted = {
        "name": campaign.name,
        "title": campaign.title,
        "members": [{"study": member.spec.name, "labels": dict(member.labels)} for member in campaign.members],
        "file": dict(campaign.values),
    }
    with disk_trouble(paths.study):
        paths.study.mkdir(parents=True, exist_ok=True)
    write_atomic(paths.study / _FILE, yaml.safe_dump(noted, sort_keys=False, width=120).encode())


def load_campaign(results: Path, name: str) -> Campaign | None:
    """Return the campaign of that name; None where there is none.

    Raises:
        SpecError: a field of its file breaks its rule.
        StudyError: what is noted of it is damaged.
    """
    file = results / name / _FILE
    if not file.exists():
        return None
    try:
        plan = parse_plan(yaml.safe_load(file.read_bytes())["file"], str(file))
        if isinstance(plan, Campaign):
            return plan
        reason = "it has no matrix"
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        reason = first_line(error)
    raise StudyError(
        f"{file} must hold a campaign as it was started, but does not ({reason}); run its study file again"
    )
