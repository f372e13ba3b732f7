"""A study that an earlier version began: its data were split by other rules, so nothing more is trained for it."""

import pytest

from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger
from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]

EMPTY = ("search.total=0", "baseline=false", "search.space={}", "generator={kind: identity}")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    """A finished study without trials whose ledger does not know a data format, as those of gitdist 0.5 do not."""
    study = SmallStudy(tmp_path_factory.mktemp("older"), overrides=EMPTY)
    assert study.run().returncode == 0
    paths = StudyPaths.at(study.results, study.name)
    ledger = Ledger.open(paths, load_stored_spec(paths))
    assert ledger.get_attr("data_format") is not None
    ledger.set_attr("data_format", None)
    ledger.close()
    return study


def test_a_finished_one_stays_as_it_is_and_is_shown(older: SmallStudy) -> None:
    stored = (older.directory / "study.yaml").read_bytes()
    for command in ("resume", "status"):
        done = call(gitdist(command, older.name, "--results", str(older.results)))
        assert (done.returncode, done.stderr) == (0, "")
    assert (older.directory / "study.yaml").read_bytes() == stored


def test_more_trials_are_refused_in_one_line_with_the_fork_that_starts_anew(older: SmallStudy) -> None:
    stored = (older.directory / "study.yaml").read_bytes()
    more = call(gitdist("resume", older.name, "--results", str(older.results), "--set", "search.total=1"))
    assert more.returncode == 2
    assert len(more.stderr.strip().splitlines()) == 1
    assert f"gitdist run {older.directory / 'study.yaml'} --fork NAME" in more.stderr
    assert (older.directory / "study.yaml").read_bytes() == stored
    file = str(older.directory / "study.yaml")
    anew = call(gitdist("run", file, "--fork", "anew", "--results", str(older.results)))
    assert anew.returncode == 0
    assert (older.results / "anew" / "study.yaml").exists()
