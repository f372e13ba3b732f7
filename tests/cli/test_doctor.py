"""``gitdist doctor`` on this machine alone: what is printed, and the exit code."""

import io
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console

from gitdist.cli.doctor import show_findings
from gitdist.spec.file import load_plan
from tests.cli.test_errors import QUICKSTART, assert_refused, gitdist


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict]:
    """Return what was printed as JSON, by check."""
    return {found["check"]: found for found in json.loads(done.stdout)["findings"]}


def test_a_machine_that_will_do(tmp_path):
    done = gitdist("doctor", QUICKSTART, "--results", tmp_path / "new" / "results", "--json")
    found = findings(done)
    limits = {"GPU", "CPU", "open files", "processes", "memory", "shared memory", "temporary"}
    assert {"versions", "results", "disk", "MLflow", "ledger", "capacity"} | limits == set(found)
    assert {found[check]["state"] for check in ("versions", "results", "MLflow", "ledger", "capacity")} == {"ok"}
    assert "trial(s) at once" in found["capacity"]["seen"] and done.returncode == 0, done.stdout
    assert not (tmp_path / "new").exists()  # nothing is left


def test_problems_are_a_table_with_remedies_and_exit_code_2(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--address", f"127.0.0.1:{port}")
    line = f"ledger=postgresql://ann@127.0.0.1:{port}/a"
    done = gitdist("doctor", QUICKSTART, "--results", tmp_path, *address, "--set", line)
    assert done.returncode == 2 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    column = lines[0].index("finding and remedy")
    assert column <= 40 and max(map(len, lines)) <= 80  # in the smallest of terminals
    told = " ".join(line[column:].strip() for line in lines)
    assert "problem" in done.stdout and "PGPASSWORD" in told and "-> start one with `ray start --head`" in told


def test_results_on_an_object_store_are_examined_there(object_store):
    plain = gitdist("doctor", QUICKSTART, "--results", object_store.uri, "--json")
    found = findings(plain)
    assert found["results"]["state"] == "ok" and found["results"]["seen"] == f"{object_store.uri} answers"
    assert "disk" not in found and "ledger must be a PostgreSQL server" in found["services"]["seen"]
    assert plain.returncode == 2 and object_store.names() == []  # nothing is left
    object_store.stop()
    found = findings(gitdist("doctor", "--results", object_store.uri, "--json"))
    assert found["results"]["state"] == "problem" and object_store.uri in found["results"]["seen"]
    refused = gitdist("doctor", "--results", "s3://key:hunter2@bucket/results")
    assert_refused(refused, "results must hold no credentials")


def examined(study: Path | None, results: Path) -> tuple[int, str]:
    """Run the command in this process; return the exit code and what was printed."""
    shown = io.StringIO()
    try:
        plan = load_plan(study) if study else None
        show_findings(plan, str(results), None, Console(file=shown, width=200), is_json=False)
    except typer.Exit as ended:
        return ended.exit_code, shown.getvalue()
    return 0, shown.getvalue()


def test_a_machine_without_a_study_is_examined_too(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, shown = examined(None, tmp_path)
    assert code == 0 and "versions" in shown and "capacity" not in shown, shown


def test_a_finding_of_all_studies_of_a_campaign_is_shown_once(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    study = tmp_path / "campaign.yaml"
    study.write_text("name: a\nmatrix: {data.nuisance: [rotation, background]}\nresources: {trial: {gpu: 99}}\n")
    code, shown = examined(study, tmp_path)
    assert code == 2 and shown.count("resources.trial asks for") == 1


def test_a_study_file_that_breaks_a_rule_is_refused_as_ever(tmp_path):
    refused = gitdist("doctor", QUICKSTART, "--set", "ledger=postgresql://ann:hunter2@host/a", "--results", tmp_path)
    assert_refused(refused, "ledger", "PGPASSWORD")
    assert "hunter2" not in refused.stderr


@pytest.mark.ray
def test_a_port_that_is_no_cluster_does_not_hang_the_command(tmp_path):
    impatient = "from gitdist.doctor import cluster; cluster._JOIN_S = 0.5; from gitdist.cli import main; main()"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [
            sys.executable,
            "-c",
            impatient,
            "doctor",
            "--address",
            address,
            "--results",
            str(tmp_path),
            "--json",
        ]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and time.monotonic() - started < 40
    found = findings(done)["cluster"]
    assert found["state"] == "problem" and address in found["seen"] and "RAY_AUTH_MODE=token" in found["remedy"]
