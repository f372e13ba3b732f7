"""``gitdist run --dry-run`` refuses what ``run`` refuses, and otherwise shows what it would do; it writes nothing."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gitdist.store.temporary import TemporaryStore, temporary_store
from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy

STUDIES = Path(__file__).parents[2] / "studies"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def dry_run(*arguments: object):
    return call(gitdist("run", *arguments, "--dry-run"))


def test_a_new_study_is_described_and_not_begun(tmp_path):
    done = dry_run(STUDIES / "quickstart.yaml", "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("digits", "8 points", "to be trained", "epochs 1 to 10"))
    assert not list(tmp_path.iterdir())


def test_a_campaign_counts_the_generators_that_its_studies_share(tmp_path):
    done = dry_run(STUDIES / "figure3_git.yaml", "--results", tmp_path, "--set", "data.version=0")
    assert done.returncode == 0, done.stderr
    assert "2 studies" in done.stdout and "generators to be trained: 1" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "override",
    ["trial.epochs=0", "search.warm_start=other", "resources.trial.gpu=99", "search.algorithm=nowhere:Sampler"],
)
def test_what_a_run_refuses_is_refused(override, tmp_path):
    done = dry_run(STUDIES / "quickstart.yaml", "--results", tmp_path / "results", "--set", override)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_stored_study_stays_as_it_is(moved_study: SmallStudy, tmp_path):
    study = replace(moved_study, results=tmp_path / "copy")
    shutil.copytree(moved_study.results, study.results)
    before = contents(study.results)
    stored = study.results / study.name / "study.yaml"
    done = dry_run(stored, "--results", study.results)
    assert done.returncode == 0 and "finished" in done.stdout, done.stderr
    longer = dry_run(stored, "--results", study.results, "--set", "search.total=3")
    assert longer.returncode == 0 and "2 trials have ended" in longer.stdout, longer.stderr
    changed = dry_run(stored, "--results", study.results, "--set", "trial.lr=0.3")
    assert changed.returncode == 2 and "trial.lr" in changed.stderr
    assert contents(study.results) == before


def test_a_temporary_store_reads_another_and_writes_only_itself(tmp_path):
    with temporary_store() as base:
        base.get_or_build("kind", {"a": 1}, lambda target, scratch: (target / "file").touch() or None)
        before = contents(base.root)
        store = TemporaryStore(tmp_path / "store", base.root)
        found = store.find("kind", {"a": 1})
        assert found is not None and found.is_relative_to(base.root)
        built = store.get_or_build("kind", {"a": 2}, lambda target, scratch: (target / "file").touch() or None)
        assert built.is_relative_to(store.root) and contents(base.root) == before
