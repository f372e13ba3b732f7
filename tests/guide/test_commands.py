"""Every command in README and guide is run, except those of ``NOT_RUN``: their words are checked."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gitdist.cli.app import app
from tests.commands import call, gitdist
from tests.guide.pages import REPOSITORY, blocks, commands, inline_code
from tests.study.ended_study import NAME

STUDIES = {"STUDY", "CAMPAIGN", "quickstart", "photos", "figure3-small"}  # a study that has ended stands for each
SHELL = {tuple(words): block.place for block in blocks("bash") for words in commands(block)}  # each once, and where
NOT_RUN = {  # a pattern of commands, and why
    r"--address|/shared/": "needs a cluster",
    r"s3://": "needs an object store",
    r"^gitdist ui": "serves until it is interrupted",
    r"^gitdist confirm": "trains for minutes",
    r"search\.total=": "trains for minutes",
    r"--fork|--scale|--set": "trains another study",
    r"^gitdist generator (train|quality)": "trains for minutes",
    r"^gitdist generator import": "needs a published checkpoint",
}


def test_reasons_are_needed():
    lines = [" ".join(words) for words in SHELL]
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in lines)] == []


@pytest.fixture(scope="module")
def folder(guide_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("guide") / "work"
    shutil.copytree(guide_results, copy)
    return copy


@pytest.mark.parametrize("words", SHELL, ids=lambda words: f"{SHELL[words]} {' '.join(words)}")
def test_a_command_works(words: tuple[str, ...], folder: Path, tmp_path: Path):
    program, *arguments = words
    if program != "gitdist":
        OTHERS[program](arguments)
        return
    parse(arguments)
    if any(re.search(pattern, " ".join(words)) for pattern in NOT_RUN):
        return
    ended = ["STUDY.yaml" if word.endswith(".yaml") else NAME if word in STUDIES else word for word in arguments]
    if arguments[0] == "init":  # it overwrites no file
        shutil.copytree(folder / "photos", tmp_path / "photos")
        done = call(gitdist(*arguments), cwd=tmp_path)
    else:
        done = call(gitdist(*ended), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_in_the_text_parse():
    spans = [(page, span) for page, span in inline_code() if span.startswith("gitdist ")]
    assert len(spans) > 10
    for page, span in spans:
        try:
            parse(shlex.split(span)[1:])
        except SystemExit as end:
            assert end.code in (0, None), (page, span)


def parse(arguments: Sequence[str]) -> None:
    """Parse a command line of gitdist as its program does; an unknown command or option is an error."""
    command: Any = get_command(app)
    rest = [word for word in arguments if word != "COMMAND"]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        assert name in command.commands, f"gitdist has no command '{name}'"
        command = command.commands[name]
    if rest and "--help" not in rest and not hasattr(command, "commands"):  # a name alone is that of a command
        command.make_context("gitdist", rest)


def _pip(arguments: list[str]) -> None:
    """An installation is what CI does first; here its extras must exist."""
    assert arguments[0] == "install"
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[(.+?)\]", " ".join(arguments)):
        assert set(named.split(",")) <= extras.keys()


def _ray(arguments: list[str]) -> None:
    """Ray's jobs need a cluster; what they run must parse."""
    from ray.scripts.scripts import cli

    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    command: Any = cli
    while hasattr(command, "commands"):
        name, *own = own
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in own if word.startswith("--")} <= known
    if "--" in arguments:
        program, *rest = arguments[arguments.index("--") + 1 :]
        assert program == "gitdist"
        parse(rest)


def _local_cluster(arguments: list[str]) -> None:
    """tests/cluster starts and stops one."""
    assert f"{arguments[0]})" in (REPOSITORY / "cluster/local.sh").read_text()


def _eval(arguments: list[str]) -> None:
    inner = shlex.split(re.fullmatch(r"\$\((.+)\)", arguments[0])[1])
    assert inner[0] == "cluster/local.sh"
    _local_cluster(inner[1:])


def _dashboard(arguments: list[str]) -> None:
    """optuna-dashboard is no dependency; the file is the ledger of a study."""
    assert arguments == ["sqlite:///results/STUDY/ledger.db"]


def _sphinx(arguments: list[str]) -> None:
    """test_build.py does it."""
    assert arguments[-2] == "studies/guide"


OTHERS = {
    "pip": _pip,
    "pytest": lambda arguments: None,
    "ray": _ray,
    "cluster/local.sh": _local_cluster,
    "eval": _eval,
    "optuna-dashboard": _dashboard,
    "sphinx-build": _sphinx,
}
