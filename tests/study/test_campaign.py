import pytest
from rich.console import Console

from gitdist.cli.errors import error_message
from gitdist.errors import StoreError, StudyError
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import parse_plan
from gitdist.study.campaign import load_campaign, store_campaign
from gitdist.study.compatibility import store_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.run import run_study


def campaign(epochs: int = 14) -> Campaign:
    plan = parse_plan(
        {
            "name": "camp",
            "data": {"nuisance": "background"},
            "trial": {"epochs": epochs, "switch_epoch": 2},
            "matrix": {"data.version": [0, 1, 2]},
        },
        "camp",
    )
    assert isinstance(plan, Campaign)
    return plan


def start(results, plan: Campaign) -> list[StudyPaths]:
    """Settle the campaign and its first two studies."""
    store_campaign(results, plan)
    started = [StudyPaths.at(results, member.spec.name) for member in plan.members[:2]]
    for paths, member in zip(started, plan.members, strict=False):
        paths.create()
        store_spec(paths, member.spec)
    return started


def test_what_its_studies_refuse_is_not_noted_of_a_campaign(tmp_path):
    start(tmp_path, campaign())
    with pytest.raises(StudyError, match=r"trial.epochs must stay .* 14, but now it is 15") as caught:
        store_campaign(tmp_path, campaign(epochs=15))
    assert "--set name=NAME" in error_message(caught.value)
    assert load_campaign(tmp_path, "camp") == campaign()


def test_a_damaged_study_is_not_the_campaigns_trouble(tmp_path):
    first, _ = start(tmp_path, campaign())
    first.spec.write_text("name: [")
    store_campaign(tmp_path, campaign())
    with pytest.raises(StudyError, match="trial.epochs must stay what study 'camp.version1' was started with"):
        store_campaign(tmp_path, campaign(epochs=15))


def test_a_study_may_not_have_a_campaigns_name_nor_a_campaign_a_studys(tmp_path):
    start(tmp_path, campaign())
    (single,) = [member.spec.model_copy(update={"name": "camp"}) for member in campaign().members[:1]]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StudyError, match=f"'camp' in {tmp_path} is a campaign") as caught:
        run_study(single, tmp_path, Console(quiet=True))
    assert sorted(tmp_path.rglob("*")) == before and caught.value.remedy == "rename"
    store_spec(StudyPaths.at(tmp_path, "camp"), single)
    with pytest.raises(StudyError, match="'camp' .* is a single study") as caught:
        store_campaign(tmp_path, campaign())
    assert caught.value.remedy == "rename"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(StoreError, match="results directory must be a directory"):
        store_campaign(tmp_path / "results", campaign())
