"""What is made of the reports of machines, without any machine."""

from pathlib import Path

import pytest

from gitdist.doctor.checks import (
    FREE_BYTES,
    check_capacity,
    check_directory,
    check_machine,
    check_sqlite,
    check_versions,
    compare_versions,
)
from gitdist.doctor.finding import Finding, as_json, worst_state
from gitdist.errors import StudyError
from gitdist.spec.file import parse_study
from gitdist.study.scheduling.packing import Node
from tests.doctor.reports import VERSIONS, directory, machine, versions

RESULTS = Path("/shared/results")


@pytest.mark.parametrize(
    ("name", "version", "state"),
    [
        ("python", "3.11.9", "problem"),
        ("gitdist", "0.4.0", "problem"),
        ("ray", "2.59.1", "problem"),
        ("torch", "2.12.0", "problem"),
        ("optuna", "5.0.1", "warning"),
        ("optuna", None, "problem"),
    ],
)
def test_a_node_with_another_version_is_reported_with_both(name, version, state):
    found = compare_versions(machine(), "b", versions(**{name: version}))
    assert (found.place, found.state) == ("b", state) and found.remedy
    assert f"{name} {version or 'missing'} (here {VERSIONS[name].removesuffix('+cpu')})" in found.seen


def test_builds_of_torch_may_differ_and_files_of_gitdist_may_not():
    assert compare_versions(machine(), "b", versions(torch="2.13.0+cu128")).state == "ok"
    found = compare_versions(machine(), "b", machine(code="5678"))
    assert found.state == "warning" and "5678" in found.seen and "1234" in found.seen


def test_a_package_that_is_missing_here_is_a_problem():
    assert check_versions(machine()).state == "ok"
    found = check_versions(versions(torch=None))
    assert found.state == "problem" and "torch" in found.seen


def test_a_home_directory_that_ray_cannot_use_is_a_problem_where_it_is_started():
    report = machine(home_error="the home directory /x cannot be written (Read-only)")
    (found,) = [found for found in check_machine("here", report) if found.check == "home"]
    assert found.state == "problem" and "HOME" in found.remedy
    assert "home" not in {found.check for found in check_machine("b", report, Node("b", 2))}


def state_of(check: str, *offered, **changes) -> str:
    (found,) = [found for found in check_machine("b", machine(**changes), *offered) if found.check == check]
    assert bool(found.remedy) == (found.state != "ok")
    return found.state


@pytest.mark.parametrize(
    ("offered", "gpus", "state"),
    [(0, [], "ok"), (2, ["H100", "H100"], "ok"), (1, [], "problem"), (1, ["H100", "H100"], "ok")],
)
def test_torch_sees_the_gpus_offered_to_ray(offered, gpus, state):
    assert state_of("GPU", Node("b", 4.0, [1.0] * offered), gpus=gpus) == state


def test_a_torch_that_cannot_be_imported_is_a_problem():
    assert state_of("GPU", gpu_error="ImportError: libcudnn") == "problem"


@pytest.mark.parametrize(
    ("offered", "allotted", "state"), [(None, 8, "ok"), (None, 2.5, "ok"), (2.0, 2.5, "ok"), (8.0, 2.0, "warning")]
)
def test_ray_gets_no_more_cpus_than_are_allotted(offered, allotted, state):
    node = None if offered is None else Node("b", offered)
    assert state_of("CPU", node, allotted_cpus=allotted) == state
    found = next(
        found for found in check_machine("b", machine(allotted_cpus=2.5), Node("b", 8)) if found.check == "CPU"
    )
    assert "--num-cpus=2" in found.remedy


@pytest.mark.parametrize(
    ("check", "changes", "state"),
    [
        ("open files", {"open_files": 1024}, "warning"),
        ("open files", {"open_files": 128}, "problem"),
        ("processes", {"spare_processes": 900}, "warning"),
        ("processes", {"spare_processes": 200}, "problem"),
        ("memory", {"memory_bytes": int(2e9)}, "warning"),
        ("temporary", {"temporary_free": 0.01}, "warning"),
        ("temporary", {"temporary_error": "the temporary directory /x cannot be written (Read-only)"}, "problem"),
    ],
)
def test_limits(check, changes, state):
    assert state_of(check) == "ok" and state_of(check, **changes) == state


@pytest.mark.parametrize(
    ("shared", "store", "state"),
    [
        (8e9, 0, "ok"),
        (8e9, 4e9, "ok"),
        (64e6, 0, "warning"),
        (None, 0, "warning"),
        (8e9, 9e9, "warning"),
        (8e9, 0.2e9, "warning"),
    ],
)
def test_shared_memory_holds_the_object_store(shared, store, state):
    node = Node("b", 8) if store else None
    name = "shared_memory_bytes" if store else "shared_memory_free"
    assert state_of("shared memory", node, store, **{name: shared}) == state


def study(**fields):
    return parse_study({"name": "a", **fields}, "test")


def test_capacity_is_what_the_study_itself_would_say():
    nodes = [Node("b", 4.0)]
    (found,) = check_capacity("cluster", nodes, study())
    assert found.seen.startswith("3 trial(s) at once")
    for resources, words in (
        ({"trial": {"cpu": 8}}, ["resources.trial", "8 CPU", "4 CPU"]),
        ({"trial": {"gpu": 0.5}}, ["resources.trial", "0.5 GPU", "0 GPU"]),
        ({"training": {"cpu": 16}}, ["resources.training", "16 CPU", "train the generator"]),
    ):
        (found,) = check_capacity("cluster", nodes, study(resources=resources))
        assert found.state == "problem" and all(word in found.seen for word in words), found
        assert found.remedy.startswith("lower resources.")
    without_trials = study(resources={"trial": {"cpu": 8}}, search={"total": 0}, baseline=False)
    without_training = study(
        resources={"training": {"cpu": 16}}, generator={"kind": "oracle"}, data={"nuisance": "rotation"}
    )
    for small in (without_trials, without_training):
        assert [found.state for found in check_capacity("cluster", nodes, small)] == ["ok"]


def test_gpus_that_a_study_leaves_idle_are_named_with_a_remedy():
    nodes, fields = [Node("b", 4.0, [1.0] * 8)], {"search": {"total": 20}}
    for resources, remedy in (({}, "resources.trial.cpu"), ({"trial": {"gpu": 0}}, "resources.trial.gpu: auto")):
        found = check_capacity("cluster", nodes, study(resources=resources, **fields))[1]
        assert (found.check, found.state) == ("GPU use", "warning")
        assert "idle" in found.seen and remedy in found.remedy
    busy = check_capacity("cluster", [Node("b", 16.0, [1.0] * 8)], study(**fields))
    assert [found.state for found in busy] == ["ok", "ok"] and "idle" not in busy[1].seen


def test_a_directory_that_is_not_shared_is_a_problem():
    found = check_directory("b", RESULTS, directory(sees_token=False))[1]
    assert (found.check, found.state) == ("sharing", "problem") and str(RESULTS) in found.seen and "NFS" in found.remedy
    assert [found.state for found in check_directory("b", RESULTS, directory())] == ["ok"] * 3
    assert [found.check for found in check_directory("here", RESULTS, directory(sees_token=None))] == [
        "results",
        "disk",
    ]


def test_an_unwritable_directory_is_reported_once():
    report = directory(error="/shared/results: Permission denied", sees_token=False)
    (there,) = check_directory("b", RESULTS, report)
    (here,) = check_directory("here", RESULTS, report)
    assert there.state == here.state == "problem" and "mount" in there.remedy and "--results" in here.remedy


def test_little_free_space_is_a_warning():
    found = check_directory("b", RESULTS, directory(free_bytes=int(FREE_BYTES) - 1))[-1]
    assert (found.check, found.state) == ("disk", "warning") and "gitdist store gc" in found.remedy


def test_sqlite_on_a_network_disk_is_a_warning():
    for check, remedy in (("ledger", "journal"), ("MLflow", "tracking.uri")):
        (found,) = check_sqlite(check, RESULTS, "nfs4")
        assert (found.check, found.state) == (check, "warning") and remedy in found.remedy
        assert check_sqlite(check, RESULTS, "ext4") == check_sqlite(check, RESULTS, None) == []


def test_an_error_is_a_finding_with_its_remedy():
    found = Finding.of_error("capacity", "cluster", StudyError("it does not fit (too large); make it smaller; or more"))
    assert (found.seen, found.remedy) == ("it does not fit (too large)", "make it smaller; or more")


def test_the_worst_state_decides():
    fine, odd, bad = (Finding("a", "here", state, "") for state in ("ok", "warning", "problem"))
    assert [worst_state(found) for found in ([fine], [odd, fine], [fine, bad, odd])] == ["ok", "warning", "problem"]
    listed = [{"check": "a", "place": "here", "state": "warning", "seen": "", "remedy": ""}]
    assert as_json([odd]) == {"state": "warning", "findings": listed}
