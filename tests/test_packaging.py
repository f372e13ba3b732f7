"""The package as users get it: built, checked, and installed into a virtual environment without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from gitdist.spec.file import load_study

ROOT = Path(__file__).parents[1]
NO_SOURCES = ".git .*_cache .hypothesis __pycache__ *.egg-info build dist venv .venv results _build secrets"


def run(*command: object, cwd: Path) -> str:
    """Run a command that finds the package only where it is installed; return what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Package:
    """A copy of the checkout, and the source distribution and wheel that were built from it."""

    source: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    directory = tmp_path_factory.mktemp("package")
    source = shutil.copytree(ROOT, directory / "source", ignore=shutil.ignore_patterns(*NO_SOURCES.split()))
    files = directory / "files"
    # the wheel is built from the source distribution, with the environment's setuptools
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", files, source, cwd=directory)
    (sdist,), (wheel,) = files.glob("*.tar.gz"), files.glob("*.whl")
    return Package(source, sdist, wheel)


def test_what_is_built_is_fit_to_publish(package: Package) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", package.sdist, package.wheel, cwd=package.sdist.parent)


def test_the_source_distribution_has_every_file(package: Package) -> None:
    with tarfile.open(package.sdist) as archive:
        packed = {str(Path(name).relative_to(Path(name).parts[0])) for name in archive.getnames()}
    files = {str(file.relative_to(package.source)) for file in package.source.rglob("*") if file.is_file()}
    built = {name for name in files if ".egg-info" in name}
    assert files - built - packed == {".gitignore"}


def test_the_wheel_has_the_package_and_nothing_else(package: Package) -> None:
    with zipfile.ZipFile(package.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (package.source / "gitdist").rglob("*")
    assert names == {str(file.relative_to(package.source)) for file in files if file.is_file()}
    assert "gitdist/py.typed" in names


def test_commands_work_where_only_the_wheel_is_installed(package: Package, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    # The dependencies are those of this environment; a path file does not bring in its editable packages.
    (libraries / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    python = place / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", package.wheel, cwd=tmp_path)
    found = run(python, "-c", "import gitdist; print(gitdist.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(libraries)
    gitdist = place / "bin" / "gitdist"
    version = package.wheel.name.split("-")[1]
    assert version in run(gitdist, "--version", cwd=tmp_path)
    run(gitdist, "init", "quickstart", "--out", "study.yaml", cwd=tmp_path)  # a file of the package
    assert load_study(tmp_path / "study.yaml").name == yaml.safe_load((tmp_path / "study.yaml").read_text())["name"]
