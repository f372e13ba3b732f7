from pathlib import Path

import pytest

from gitdist.cli.submit import submit_run
from gitdist.errors import SpecError

NOBODY = "http://127.0.0.1:9"  # nothing that is refused goes there


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text("name: study\ntracking: {uri: http://mlflow:5000}\n")
    return file


@pytest.mark.parametrize("results", ["s3://me:hush@bucket/results", "s3://bucket/results?secret_key=hush"])
def test_credentials_in_the_place_of_the_results_are_not_submitted(study: Path, results: str) -> None:
    with pytest.raises(SpecError, match="results must hold no credentials") as refused:
        submit_run("study", study, results, (), NOBODY, scale=None, fork=None, take_over=False)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("place", ["file", "override"])
def test_a_password_in_the_study_is_not_submitted(study: Path, place: str) -> None:
    secret = "http://me:hush@mlflow:5000"
    if place == "file":
        study.write_text(study.read_text().replace("http://mlflow:5000", secret))
    overrides = [f"tracking.uri={secret}"] if place == "override" else []
    where = "study.yaml, line 2" if place == "file" else "--set"
    with pytest.raises(SpecError, match=f"dashboard, but .*{where}: a secret in an address.*; take it out") as refused:
        submit_run("study", study, "/results", overrides, NOBODY, scale=None, fork=None, take_over=False)
    assert "hush" not in str(refused.value)
