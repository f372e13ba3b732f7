"""A new study whose search starts with the trials of another one."""

import shutil
from pathlib import Path

import pytest

from gitdist.data.dataset import prepare
from gitdist.errors import SpecError, StudyError
from gitdist.spec.file import parse_study
from gitdist.study.files.layout import StudyPaths, open_store
from gitdist.study.ledger.observations import OBSERVATIONS
from gitdist.study.prepare import check_and_repair
from gitdist.study.study import Study
from tests.study.ended_study import NAME, SPEC, make_study

BROKEN, PRUNERS = "tests.study.ledger.test_suggestion", "tests.study.ledger.test_pruning"


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Path:
    """Results with a study that has ended."""
    return make_study(tmp_path_factory.mktemp("ended")).study.parent


@pytest.fixture
def results(ended, tmp_path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "results"))


def begin(results: Path, log: list[str] | None = None, **search) -> dict:
    """Do what a driver does before it trains; return what the ledger has of the other study."""
    fields = {**SPEC["search"], "algorithm": "tpe", "warm_start": NAME, **search}
    spec = parse_study({**SPEC, "name": "new", "search": fields}, "the test")
    paths = StudyPaths.at(results, "new")
    paths.create()
    dataset = prepare(spec.data, open_store(paths, spec))
    with Study.create(paths, spec) as study:
        check_and_repair(study, dataset, {}, retry_failed=False, log=[].append if log is None else log.append)
        return study.ledger.get_attr(OBSERVATIONS)


def test_the_other_study_is_copied_once(results):
    log: list[str] = []
    copied = begin(results, log)
    assert copied["study"] == NAME and len(copied["trials"]) == 3
    assert [line for line in log if NAME in line] != []
    shutil.rmtree(results / NAME)  # it may be gone from then on
    assert begin(results) == copied


def test_a_study_in_other_results_is_named_by_its_directory(ended, tmp_path):
    copied = begin(tmp_path, warm_start=str(ended / NAME))
    assert len(copied["trials"]) == 3


@pytest.mark.parametrize(
    ("search", "error", "word"),
    [
        ({"warm_start": "missing"}, StudyError, "missing"),
        ({"space": {"threshold": {"int": [1, 9]}}}, SpecError, "fraction"),
        ({"space": {"fraction": {"choice": [0.2, 0.4]}}}, SpecError, "no use: all points"),
        ({"algorithm": "no_module:Sampler"}, SpecError, "no_module"),
        ({"algorithm": "optuna.samplers:PartialFixedSampler"}, SpecError, "base_sampler"),
        ({"algorithm": f"{BROKEN}:Broken", "options": {"start": 20}, "warm_start": None}, StudyError, "KeyError"),
        ({"pruner": {"kind": "no_module:Pruner", "min_epochs": 1}}, SpecError, "no_module"),
        ({"pruner": {"kind": f"{PRUNERS}:Broken", "min_epochs": 1, "options": {"after": 1}}}, StudyError, "KeyError"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_recorded(results, search, error, word):
    with pytest.raises(error, match=word):
        begin(results, **search)
    assert not StudyPaths.at(results, "new").spec.exists()
    assert len(begin(results)["trials"]) == 3
