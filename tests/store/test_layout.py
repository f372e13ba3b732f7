from pathlib import Path

import pytest

from gitdist.store.artifact import ArtifactId
from gitdist.store.layout import StoreLayout, cache_directory, cached_store

KEY = "0123456789abcdef0123"


def test_artifacts_are_distinguished_from_what_else_is_in_the_directory(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    layout.create()
    artifacts = [ArtifactId("blocks", KEY), ArtifactId("dataset", KEY)]
    for artifact in artifacts:
        layout.path(artifact).mkdir(parents=True)
        layout.scratch(artifact).mkdir()
        layout.new_target(artifact)
    (tmp_path / "dataset" / "notes").mkdir()
    (tmp_path / "dataset" / KEY.replace("0", "1")).touch()
    assert list(layout.artifacts()) == artifacts


def test_each_uri_has_its_directory_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path))
    uris = ["s3://bucket/results", "s3://other/results", "s3://bucket/results?region=eu", "s3://bucket"]
    directories = {cache_directory(uri) for uri in uris}
    assert len(directories) == 4 and {path.parent for path in directories} == {tmp_path}
    assert cache_directory("s3://bucket/results/") == tmp_path / "results-4d306058a36c"
    assert cached_store("s3://bucket/results") == tmp_path / "results-4d306058a36c" / "store"
