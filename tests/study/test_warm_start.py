"""A new study whose search starts with the trials of another one."""

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

BROKEN = "tests.study.ledger.test_suggestion"


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


def test_the_other_study_is_copied_once(tmp_path):
    other = make_study(tmp_path)
    log: list[str] = []
    copied = begin(tmp_path, log)
    assert copied["study"] == NAME and len(copied["trials"]) == 3
    assert [line for line in log if NAME in line] != []
    for file in sorted(other.study.rglob("*"), reverse=True):  # it may be gone from then on
        file.unlink() if file.is_file() else file.rmdir()
    assert begin(tmp_path) == copied


def test_a_study_in_other_results_is_named_by_its_directory(tmp_path):
    make_study(tmp_path / "others")
    copied = begin(tmp_path / "own", warm_start=str(tmp_path / "others" / NAME))
    assert len(copied["trials"]) == 3


@pytest.mark.parametrize(
    ("search", "error", "word"),
    [
        ({"warm_start": "missing"}, StudyError, "missing"),
        ({"space": {"threshold": {"int": [1, 9]}}}, SpecError, "fraction"),
        ({"algorithm": "no_module:Sampler"}, SpecError, "no_module"),
        ({"algorithm": "optuna.samplers:PartialFixedSampler"}, SpecError, "base_sampler"),
        ({"algorithm": f"{BROKEN}:Broken", "options": {"start": 20}, "warm_start": None}, StudyError, "KeyError"),
        ({"pruner": {"kind": "no_module:Pruner", "min_epochs": 1}}, SpecError, "no_module"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_recorded(tmp_path, search, error, word):
    make_study(tmp_path)
    with pytest.raises(error, match=word):
        begin(tmp_path, **search)
    assert not StudyPaths.at(tmp_path, "new").spec.exists()
    assert len(begin(tmp_path)["trials"]) == 3
