"""What is made of what machines tell, without any machine."""

from pathlib import Path

import pytest

from gitdist.doctor.exposure import (
    check_authentication,
    check_listening,
    check_public_addresses,
    check_remote_server,
    check_token_file,
)
from gitdist.doctor.finding import Finding, as_json, has_problem
from gitdist.doctor.hardware import check_asked_cards, check_cards, check_clock, check_memory, skew
from gitdist.doctor.results import FREE_BYTES, check_directory, check_sharing, check_sqlite
from gitdist.doctor.room import check_room
from gitdist.doctor.study_file import check_secrets
from gitdist.doctor.versions import check_own_versions, compare_versions
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
def test_a_node_with_another_version_is_told_with_both(name, version, state):
    found = compare_versions(machine(), "b", versions(**{name: version}))
    assert (found.place, found.state) == ("b", state)
    assert f"{name} {version or 'missing'} (here {VERSIONS[name]})" in found.seen
    assert (f"{name}==" in found.remedy) == (name != "python") and found.remedy


def test_builds_of_torch_may_differ_and_files_of_gitdist_may_not():
    assert compare_versions(machine(), "b", versions(torch="2.13.0+cu128")).state == "ok"
    found = compare_versions(machine(), "b", machine(code="5678"))
    assert found.state == "warning" and "5678" in found.seen and "1234" in found.seen


def test_a_package_that_is_missing_here_is_a_problem():
    assert check_own_versions(machine()).state == "ok"
    found = check_own_versions(versions(torch=None))
    assert found.state == "problem" and "torch" in found.seen


@pytest.mark.parametrize(
    ("offered", "cards", "state"),
    [(0.0, [], "ok"), (2.0, ["H100", "H100"], "ok"), (1.0, [], "problem"), (1.0, ["H100", "H100"], "ok")],
)
def test_torch_sees_the_cards_offered_to_ray(offered, cards, state):
    assert check_cards("b", machine(cards=cards), offered).state == state


def test_a_torch_that_cannot_be_imported_is_a_problem():
    found = check_cards("b", machine(torch_trouble="ImportError: libcudnn"), 0.0)
    assert found.state == "problem" and "libcudnn" in found.seen


def study(**fields):
    return parse_study({"name": "a", **fields}, "test")


def test_a_study_that_asks_for_cards_where_there_are_none():
    asking = study(resources={"trial": {"gpu": 0.5}})
    (found,) = check_asked_cards("cluster", asking, 0)
    assert found.state == "problem" and "resources.trial.gpu 0.5" in found.seen
    assert check_asked_cards("cluster", asking, 1) == check_asked_cards("cluster", study(), 0) == []
    growing = study(resources={"trial": {"gpu": 0.5}, "autoscaling": True, "max_concurrent": 4})
    assert check_asked_cards("cluster", growing, 0) == []


def test_room_is_what_the_study_itself_would_say():
    nodes = [Node("b", 4.0)]
    assert check_room("cluster", nodes, study()).seen.startswith("3 trial(s) at once")
    for resources, words in (
        ({"trial": {"cpu": 8}}, ["resources.trial", "8 CPU", "4 CPU"]),
        ({"training": {"cpu": 16}}, ["resources.training", "16 CPU", "train the generator"]),
    ):
        found = check_room("cluster", nodes, study(resources=resources))
        assert found.state == "problem" and all(word in found.seen for word in words), found
        assert found.remedy.startswith("lower resources.")
    small = study(resources={"trial": {"cpu": 8}}, search={"total": 0}, baseline=False)
    assert check_room("cluster", nodes, small).state == "ok"  # it has no trials
    assert (
        check_room(
            "cluster",
            nodes,
            study(resources={"training": {"cpu": 16}}, generator={"kind": "oracle"}, data={"nuisance": "rotation"}),
        ).state
        == "ok"
    )


@pytest.mark.parametrize(
    ("shared", "store", "state"),
    [
        (8e9, None, "ok"),
        (8e9, 4e9, "ok"),
        (64e6, None, "warning"),
        (None, None, "warning"),
        (8e9, 9e9, "warning"),
        (8e9, 0.2e9, "warning"),
    ],
)
def test_shared_memory_holds_the_object_store(shared, store, state):
    assert check_memory("b", machine(shared_memory_bytes=shared), store).state == state


@pytest.mark.parametrize(
    ("ahead", "state"),
    [(0.0, "ok"), (0.9, "ok"), (-1.6, "warning"), (25.0, "warning"), (40.0, "problem"), (-40.0, "problem")],
)
def test_a_clock_that_is_off_is_told_with_how_far(ahead, state):
    found = check_clock("b", [(100.0, 100.2 + ahead, 100.4)])
    assert found.state == state
    if state != "ok":
        assert f"{abs(ahead):.2f} s" in found.seen and ("ahead" if ahead > 0 else "behind") in found.seen


def test_a_slow_answer_does_not_count_against_a_clock():
    assert check_clock("b", [(100.0, 101.9, 104.0)]).state == "ok"
    assert skew([(100.0, 103.0, 110.0), (200.0, 202.0, 200.5)]) == (1.75, 0.25)


@pytest.mark.parametrize(
    ("seen_there", "seen_here", "words"),
    [
        (False, False, "another directory"),
        (True, False, "this machine does not see"),
        (False, True, "does not see what"),
    ],
)
def test_a_directory_that_is_not_shared_is_a_problem(seen_there, seen_here, words):
    found = check_sharing("b", RESULTS, directory(sees_token=seen_there), seen_here)
    assert found.state == "problem" and words in found.seen and str(RESULTS) in found.seen and "NFS" in found.remedy
    assert check_sharing("b", RESULTS, directory(), True).state == "ok"


def test_an_unwritable_directory_is_told_once():
    report = directory(trouble="/shared/results: Permission denied", sees_token=False)
    (there,) = check_directory("b", RESULTS, report)
    (here,) = check_directory("here", RESULTS, report)
    assert there.state == here.state == "problem" and "mount" in there.remedy and "--results" in here.remedy
    assert check_sharing("b", RESULTS, report, False) is None


def test_little_free_space_is_a_warning():
    assert [found.state for found in check_directory("b", RESULTS, directory())] == ["ok", "ok"]
    found = check_directory("b", RESULTS, directory(free_bytes=int(FREE_BYTES) - 1))[1]
    assert found.state == "warning" and "gitdist store gc" in found.remedy


def test_sqlite_on_a_network_disk_is_a_warning():
    for check, remedy in (("ledger", "journal"), ("MLflow", "tracking.uri")):
        (found,) = check_sqlite(check, RESULTS, "nfs4")
        assert (found.check, found.state) == (check, "warning") and remedy in found.remedy
        assert check_sqlite(check, RESULTS, "ext4") == check_sqlite(check, RESULTS, None) == []


@pytest.mark.parametrize(
    ("address", "state"),
    [
        ("127.0.0.1", "ok"),
        ("10.0.0.5", "ok"),
        ("::1", "ok"),
        ("0.0.0.0", "warning"),
        ("::", "warning"),
        ("8.8.8.8", "warning"),
        ("::ffff:8.8.8.8", "warning"),
        ("fe80::1%eth0", "ok"),
    ],
)
@pytest.mark.parametrize("owner", ["Ray dashboard", "Ray client server", "MLflow server"])
def test_a_port_beyond_private_addresses_is_a_warning(address, state, owner):
    (found,) = check_listening("b", machine(listening=[(address, 8265, owner)]))
    assert found.state == state and owner in found.seen and bool(found.remedy) == (state == "warning")


def test_a_public_address_of_a_node_is_a_warning():
    (found,) = check_public_addresses("b", machine(addresses=["127.0.0.1", "10.0.0.5", "8.8.8.8"]))
    assert found.state == "warning" and "8.8.8.8" in found.seen and "10.0.0.5" not in found.seen
    assert check_public_addresses("b", machine(addresses=["127.0.0.1", "10.0.0.5", "fe80::1"])) == []


def test_a_server_reached_in_the_open_is_a_warning():
    assert check_remote_server("http://mlflow.example", "mlflow.example", ["8.8.8.8"])[0].state == "warning"
    assert check_remote_server("https://mlflow.example", "mlflow.example", ["8.8.8.8"]) == []
    assert check_remote_server("http://mlflow.internal", "mlflow.internal", ["10.0.0.7"]) == []


@pytest.mark.parametrize("mode", [None, "disabled", "Disabled"])
def test_a_cluster_without_tokens_may_be_on_loopback_only(mode):
    assert check_authentication(False, mode, ["127.0.0.1", "127.0.0.1"]).state == "ok"
    found = check_authentication(False, mode, ["10.0.0.5", "10.0.0.6"])
    assert found.state == "problem" and "10.0.0.5" in found.seen and "RAY_AUTH_MODE=token" in found.remedy
    bound = check_authentication(False, mode, ["127.0.0.1", "::"])  # a head that was told to be on loopback
    assert bound.state == "problem" and "every address" in bound.seen


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5"])
def test_a_token_of_this_process_alone_guards_nothing(address):
    found = check_authentication(False, "token", [address])
    assert found.state == "problem" and found.seen.startswith("off") and "RAY_AUTH_MODE=token here" in found.seen


@pytest.mark.parametrize("mode", ["token", None])
def test_a_cluster_that_asks_for_a_token_may_be_anywhere(mode):
    assert check_authentication(True, mode, ["8.8.8.8"]).state == "ok"


@pytest.mark.parametrize(
    ("readers", "used", "state"),
    [("", True, "ok"), ("everybody", True, "problem"), ("its group", True, "problem"), ("everybody", False, "warning")],
)
def test_a_token_that_others_can_read(readers, used, state):
    report = machine(token_file="/home/a/.ray/auth_token", token_readers=readers, token_used=used)
    (found,) = check_token_file("b", report)
    assert found.state == state and ("chmod 600 /home/a/.ray/auth_token" in found.remedy) == bool(readers)
    assert check_token_file("b", machine()) == []


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("tracking: {uri: 'https://ann:hunter2@mlflow.example'}", "hunter2"),
        ("store: {uri: 's3://KEY:hunter2@bucket/gitdist'}", "hunter2"),
        ("store: {uri: 's3://bucket/gitdist?secret_key=hunter2&region=eu'}", "hunter2"),
        ("store: {uri: abfs://box@host/a?client_secret=hunter2}", "hunter2"),
        ("store: {uri: abfs://box@host/a?sas_token=hunter2}", "hunter2"),
    ],
)
def test_a_password_in_a_study_file_is_found_and_not_shown(line, secret):
    (found,) = check_secrets(Path("a.yaml"), f"name: a\n{line}\n", [])
    assert found.state == "problem" and "a.yaml, line 2" in found.seen and secret not in found.seen
    (found,) = check_secrets(Path("a.yaml"), "name: a\n", [line])
    assert found.state == "problem" and "--set" in found.seen and secret not in found.seen


@pytest.mark.parametrize(
    "line", ["ledger: postgresql://ann@host:5432/db", "tracking: {uri: 'http://host:5000'}  # mail ann@example.org"]
)
def test_an_address_without_a_password_is_none(line):
    (found,) = check_secrets(Path("a.yaml"), line, ["store.uri=s3://bucket/a"])
    assert found.state == "ok"


def test_an_error_is_a_finding_with_its_remedy():
    found = Finding.of_error("room", "cluster", StudyError("no room for it (too large); make it smaller; or more"))
    assert (found.seen, found.remedy) == ("no room for it (too large)", "make it smaller; or more")


def test_the_worst_state_is_told():
    fine, odd, bad = (Finding("a", "here", state, "") for state in ("ok", "warning", "problem"))
    assert [as_json(found)["state"] for found in ([fine], [odd, fine], [fine, bad, odd])] == [
        "ok",
        "warning",
        "problem",
    ]
    assert not has_problem([fine, odd]) and has_problem([fine, bad])
    assert as_json([odd])["findings"] == [{"check": "a", "place": "here", "state": "warning", "seen": "", "remedy": ""}]
