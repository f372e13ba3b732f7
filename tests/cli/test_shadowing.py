"""Files of the user's that are named like modules of libraries."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.test_errors import assert_refused
from tests.commands import environment

ROOT = Path(__file__).parents[2]
RAISES, EMPTY = "raise RuntimeError('not the library')\n", ""


def python(*arguments: object, cwd: Path, search: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    environ = environment(PYTHONPATH=os.pathsep.join(map(str, [*search, ROOT])))
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


def store_ls(cwd: Path, *search: Path) -> subprocess.CompletedProcess[str]:
    """List a missing store, in an interpreter of its own; that ends with one line and code 2."""
    return python("-m", "gitdist", "store", "ls", "--results", cwd / "none", cwd=cwd, search=search)


@pytest.mark.parametrize("name", ["random.py", "torch/__init__.py"])
def test_the_working_directory_is_not_searched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(RAISES)
    assert_refused(store_ls(tmp_path), "no store")


@pytest.mark.parametrize(
    ("name", "code"),
    [("random.py", EMPTY), ("rich.py", RAISES), ("numpy/__init__.py", RAISES)],
)
def test_a_file_in_the_python_path_that_hides_a_module_is_named(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(code)
    assert_refused(store_ls(tmp_path, tmp_path), str(tmp_path / name), "PYTHONPATH")


def test_other_files_and_folders_in_the_python_path_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()  # of data, not a package
    for name in ("code.py", "my_generator.py"):
        (tmp_path / name).write_text(RAISES)
    assert_refused(store_ls(tmp_path, tmp_path), "no store")


@pytest.mark.parametrize("name", ["crash.py", "gitdist"])  # the command's script has the package's name
def test_an_error_of_another_kind_stays_what_it_is(tmp_path: Path, name: str) -> None:
    script = tmp_path / name
    script.write_text("import gitdist.cli\nraise ValueError('a bug')\n")
    done = python(script, cwd=tmp_path)
    assert done.returncode == 1 and "ValueError: a bug" in done.stderr
