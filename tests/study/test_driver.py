import subprocess
import sys
from pathlib import Path

import pytest

from gitdist.errors import StoreError, StudyError
from gitdist.spec import StudySpec
from gitdist.study.driver import load_stored_spec, settle_spec, sole_driver
from gitdist.study.paths import StudyPaths

HOLD = """
import sys
from pathlib import Path
from pathlib import Path
from gitdist.study.driver import sole_driver
from gitdist.study.paths import StudyPaths
with sole_driver(StudyPaths(Path(sys.argv[1]), "study")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def paths(tmp_path) -> StudyPaths:
    paths = StudyPaths(tmp_path, "study")
    paths.create()
    return paths


def test_a_second_driver_is_refused_and_a_killed_one_leaves_the_study_free(paths):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(paths.results)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match="another process"), sole_driver(paths):
            pass
        holder.kill()
        holder.wait()
        with sole_driver(paths):
            pass


def test_the_stored_spec_is_the_resolved_one(paths):
    spec = StudySpec(name="study", trial={"epochs": 3})
    settle_spec(paths, spec)
    assert load_stored_spec(paths) == spec


@pytest.mark.parametrize(
    "change",
    [{"search": {"total": 30}}, {"resources": {"trial": {"cpu": 4}}}, {"tracking": {"uri": "http://127.0.0.1:5000"}}],
)
def test_what_leaves_results_comparable_may_change(paths, change):
    settle_spec(paths, StudySpec(name="study"))
    settle_spec(paths, StudySpec(name="study", **change))
    assert load_stored_spec(paths) == StudySpec(name="study", **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trial": {"epochs": 7}}, ["trial.epochs", "50", "7"]),
        ({"data": {"nuisance": "rotation"}}, ["data.nuisance", "'none'", "'rotation'"]),
        ({"search": {"objective": "val/ekld"}}, ["search.objective", "'val/balanced_accuracy'", "'val/ekld'"]),
        ({"search": {"space": {"fraction": {"float": [0, 1]}}}}, ["search.space.fraction"]),
    ],
)
def test_what_determines_results_may_not_change(paths, change, words):
    settle_spec(paths, StudySpec(name="study"))
    before = paths.spec.read_bytes()
    with pytest.raises(StudyError) as caught:
        settle_spec(paths, StudySpec(name="study", **change))
    assert all(word in str(caught.value) for word in words), caught.value
    assert paths.spec.read_bytes() == before


def test_an_unwritable_place_is_named():
    with pytest.raises(StoreError, match="results directory"):
        StudyPaths(Path("/proc/nowhere"), "study").create()
