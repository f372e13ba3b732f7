"""What a user sees after a mistake: one line on standard error, exit code 2, no traceback, nothing left behind."""

import socket
import subprocess
from pathlib import Path

import click
import numpy as np
import pytest
import typer
import yaml

from gitdist.cli import app
from gitdist.cli.errors import error_message
from gitdist.errors import SpecError
from tests import commands
from tests.commands import call

QUICKSTART = Path(__file__).parents[2] / "studies" / "quickstart.yaml"


def gitdist(*arguments: object, limit_s: float = 120) -> subprocess.CompletedProcess[str]:
    return call(commands.gitdist(*arguments), timeout=limit_s)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in done.stdout


def test_a_misspelt_key(tmp_path):
    done = gitdist("run", QUICKSTART, "--results", tmp_path / "results", "--set", "trial.fractoin=0.5")
    assert_refused(done, "override trial.fractoin", "did you mean 'fraction'")
    assert not (tmp_path / "results").exists()


def test_a_fraction_outside_its_range(tmp_path):
    done = gitdist("run", QUICKSTART, "--results", tmp_path / "results", "--set", "trial.fraction=1.5")
    assert_refused(done, "trial.fraction", "less than or equal to 1", "1.5")


def test_a_soft_threshold_that_is_not_above_the_smallest_class(tmp_path):
    overrides = ["trial.threshold_kind=soft", "search.space={threshold: {int: [5, 100]}}"]
    arguments = [part for override in overrides for part in ("--set", override)]
    done = gitdist("run", QUICKSTART, "--results", tmp_path / "results", *arguments)
    assert_refused(done, "threshold", "5", "7 images", "smallest class")
    assert not (tmp_path / "results" / "quickstart" / "study.yaml").exists()


def test_a_missing_study_file(tmp_path):
    assert_refused(gitdist("run", tmp_path / "none.yaml"), "no study file", str(tmp_path / "none.yaml"))


def test_missing_data_files(tmp_path):
    done = gitdist(
        "data", "stats", QUICKSTART, "--results", tmp_path, "--set", f"data={{source: npz, path: {tmp_path}/no}}"
    )
    assert_refused(done, "data.path", f"{tmp_path}/no")


def test_a_damaged_data_file_leaves_nothing_in_the_store(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("train.npz", "test.npz"):
        np.savez(folder / name, images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 4)
    (folder / "test.npz").write_bytes((folder / "test.npz").read_bytes()[:-300])
    done = gitdist("data", "stats", QUICKSTART, "--results", tmp_path, "--set", f"data={{source: npz, path: {folder}}}")
    assert_refused(done, "test.npz")
    assert not list((tmp_path / "store" / "tmp").iterdir())
    assert not (tmp_path / "store" / "dataset").exists()


@pytest.mark.parametrize("place", ["/proc/results", "/dev/null/results"])
def test_an_unwritable_results_directory(place):
    assert_refused(gitdist("run", QUICKSTART, "--results", place), "results directory", "--results", place)


@pytest.mark.parametrize("command", [("run", QUICKSTART), ("status", "quickstart"), ("store", "gc")])
def test_a_results_directory_that_is_a_loop_of_links(tmp_path, command):
    (tmp_path / "loop").symlink_to("loop")
    assert_refused(gitdist(*command, "--results", tmp_path / "loop"), str(tmp_path / "loop"), "--results")


def test_a_port_in_use(tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = gitdist("ui", "--results", tmp_path, "--port", port)
    assert_refused(done, str(port), "--port")


def test_a_ui_without_a_store(tmp_path):
    assert_refused(gitdist("ui", "--results", tmp_path / "none"), "no MLflow store", "--results")


def test_the_status_of_no_study(tmp_path):
    assert_refused(gitdist("status", "nothing", "--results", tmp_path), "no study 'nothing'", "--results")


@pytest.mark.parametrize("command", ["status", "resume"])
@pytest.mark.parametrize("study", ["../outside", "/outside"])
def test_a_study_outside_the_results_directory(tmp_path, command, study):
    done = gitdist(command, study, "--results", tmp_path / "results")
    assert_refused(done, "a study's name is a folder", f"'{study}'", ".yaml")


@pytest.mark.parametrize("command", [["ui"], ["doctor"], ["data", "stats", QUICKSTART], ["status", "a"]])
def test_a_secret_in_the_results_uri_is_not_shown(command):
    done = gitdist(*command, "--results", "s3://AKIA:HUNTER2@bucket")
    assert_refused(done, "results")
    assert "HUNTER2" not in done.stdout + done.stderr


def test_results_at_no_address():
    assert_refused(
        gitdist("status", "a", "--results", "s3://[bucket/x"), "the URI of the results", "address", "'s3://[bucket/x'"
    )


def test_a_preview_of_an_untrained_generator(tmp_path):
    done = gitdist("generator", "preview", QUICKSTART, "--results", tmp_path, "--out", tmp_path / "grid.png")
    assert_refused(done, "gitdist generator train")
    assert not (tmp_path / "grid.png").exists()


def test_resources_that_never_fit_the_cluster(tmp_path):
    study = yaml.safe_load(QUICKSTART.read_text())
    study["resources"] = {"trial": {"cpu": 1, "gpu": 1}}
    path = tmp_path / "gpu.yaml"
    path.write_text(yaml.safe_dump(study))
    done = gitdist("run", path, "--results", tmp_path / "results", "--set", "generator={kind: identity}")
    assert_refused(done, "resources.trial asks for 1 CPU and 1 GPU", "0 GPU")


@pytest.mark.slow
def test_a_study_without_trials_needs_no_room_for_them(tmp_path):
    changes = ["search={total: 0}", "baseline=false", "generator={kind: identity}", "resources.trial.gpu=1"]
    sets = [part for change in changes for part in ("--set", change)]
    done = gitdist("run", QUICKSTART, "--results", tmp_path / "results", *sets)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cluster_that_does_not_answer(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = gitdist("run", QUICKSTART, "--results", tmp_path / "results", "--address", f"127.0.0.1:{port}")
    assert_refused(done, f"127.0.0.1:{port}", "ray start")


@pytest.mark.parametrize(
    ("arguments", "replacement"),
    [
        (["bench", "generator"], "python studies/benchmarks/"),
        (
            ["run", QUICKSTART, "--submit", "--address", "http://127.0.0.1:8265"],
            "ray job submit --address http://HOST:8265 --working-dir . -- gitdist run",
        ),
    ],
)
def test_a_removed_command_or_option_names_its_replacement(arguments, replacement):
    assert_refused(gitdist(*arguments), replacement)


def test_the_commands_and_their_options_are_what_they_were():
    def options(command: click.Command) -> set[str]:
        return {name for option in command.params for name in option.opts}

    root = typer.main.get_command(app)
    shown = gitdist("--help")
    assert shown.returncode == 0 and all(f" {name} " in shown.stdout for name in root.commands)
    common = {"study", "--results"}
    running = common | {"--address", "--take-over"}
    plain = ("run", "confirm", "resume", "retry", "status", "sync", "export", "predict", "ui")
    assert {name: options(root.commands[name]) for name in plain} == {
        "run": running | {"--set", "--scale", "--fork", "--yes", "--dry-run"},
        "confirm": running | {"--seeds", "--vary", "--trial", "--name", "--yes"},
        "resume": running | {"--set"},
        "retry": running | {"--failed"},
        "status": common | {"--json"},
        "sync": common,
        "export": common | {"--out", "--trial", "--baseline"},
        "predict": common | {"images", "--trial", "--json"},
        "ui": common | {"--port"},
    }
    assert set(root.commands) == {
        *("run", "confirm", "resume", "retry", "status", "sync", "report", "export", "predict", "ui"),
        *("init", "doctor", "schema", "generator", "data", "store"),
    }
    assert options(root.commands["doctor"]) == {"study", "--results", "--set", "--address", "--scale", "--json"}
    assert options(root.commands["report"]) == {"studies", "--results", "--out"}
    assert set(root.commands["generator"].commands) == {"train", "preview", "quality", "import"}
    assert set(root.commands["data"].commands) == {"ls", "stats"}
    store = root.commands["store"].commands
    assert {name: options(store[name]) for name in store} == {
        "ls": {"--results"},
        "gc": {"--results", "--max-gb", "--unused-days", "--dry-run"},
    }


def test_a_message_is_one_line_of_plain_text_and_not_too_long():
    shown = error_message(SpecError("name 'a\nb\x1b[2J\u2028\udcff' is \u00e9 " + "x" * 10_000 + " the remedy"))
    assert shown.isprintable() and len(shown) < 2000
    assert shown.startswith("name 'a\\nb\\x1b[2J\\u2028\\udcff' is \u00e9") and shown.endswith("the remedy")
