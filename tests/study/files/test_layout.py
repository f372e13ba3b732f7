"""The store of a study, as its spec names it."""

import pickle

import pytest
from pydantic import ValidationError

from gitdist.spec import StoreSpec, StudySpec
from gitdist.study.files.layout import StudyPaths, open_store


def test_a_relative_shared_store_is_the_same_one_in_every_working_directory(tmp_path, monkeypatch):
    (tmp_path / "worker").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = StudySpec(name="study", store=StoreSpec(uri="shared", max_gb=0.5))
    store = open_store(StudyPaths.at(tmp_path / "results", "study"), spec)
    built = store.get_or_build("thing", {"a": 1}, lambda target, scratch: (target / "file").write_text("content"))
    monkeypatch.chdir(tmp_path / "worker")
    arrived = pickle.loads(pickle.dumps(store))
    assert (arrived.shared, arrived.max_bytes) == (str(tmp_path / "shared"), 500_000_000)
    assert arrived.find("thing", {"a": 1}) == built and not list((tmp_path / "worker").iterdir())


@pytest.mark.parametrize("bound", [0, float("nan"), float("inf")])
def test_a_bound_is_a_number_above_zero(bound):
    with pytest.raises(ValidationError, match="max_gb"):
        StoreSpec(max_gb=bound)
