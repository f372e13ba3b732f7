"""``gitdist init`` writes a study that ``run`` accepts, for each thing it can be given; it overwrites nothing."""

from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from gitdist.cli.init import template_names
from gitdist.spec.file import load_study
from gitdist.spec.schema import study_file_schema
from gitdist.spec.strict_yaml import load_yaml
from gitdist.store.temporary import temporary_store
from gitdist.study.files.results import open_results
from gitdist.study.prepare import check_run
from tests.commands import call, gitdist

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(study_file_schema())


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the schema is stored
    monkeypatch.chdir(tmp_path)


def write_images(folder: Path, counts: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(20, 60, 2)
            Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(folder / name / f"{index}.jpg")


def init(*arguments: str) -> list[str]:
    done = call(gitdist("init", *arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def refusal(*arguments: str) -> str:
    done = call(gitdist("init", *arguments))
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1, done
    return done.stderr


def assert_runs(file: Path) -> None:
    text = file.read_text()
    schema = Path(text.splitlines()[0].partition("$schema=")[2])
    assert schema.is_file() and not list(VALIDATOR.iter_errors(load_yaml(text)))
    with temporary_store() as store:
        dataset, num_ended = check_run(load_study(file), open_results("results"), store)
    assert num_ended == 0 and dataset.num_classes
    assert not Path("results").exists()


def test_the_quickstart_of_the_package_is_that_of_the_studies():
    assert template_names() == ["quickstart"]
    init("quickstart")
    assert load_study(Path("study.yaml")) == load_study(ROOT / "studies" / "quickstart.yaml")
    init("quickstart", "--out", "other.yaml", "--name", "other")
    assert load_study(Path("other.yaml")).name == "other"
    assert_runs(Path("other.yaml"))


def test_a_folder_of_images():
    write_images(Path("my photos"), {"cat": 30, "dog": 12, "owl": 2})
    lines = init("my photos", "--out", "study 1.yaml")
    assert any("owl" in line for line in lines) and lines[-1].endswith("gitdist run 'study 1.yaml'")
    spec = load_study(Path("study 1.yaml"))
    assert spec.name == "my-photos" and spec.data.path == str(Path("my photos").absolute())
    assert_runs(Path("study 1.yaml"))


def test_a_folder_with_splits():
    for split, count in {"train": 12, "val": 3, "test": 3}.items():
        write_images(Path("sets") / split, {"cat": count, "dog": 2 * count})
    init("sets")
    assert_runs(Path("study.yaml"))


def test_a_source():
    init("digits", "--name", "first")
    assert load_study(Path("study.yaml")).name == "first"
    assert_runs(Path("study.yaml"))


def test_a_file_is_never_overwritten():
    Path("study.yaml").write_text("mine")
    assert "study.yaml" in refusal("quickstart")
    assert Path("study.yaml").read_text() == "mine"


def test_a_missing_folder_is_refused_before_the_data_are_read():
    assert "must be in an existing folder" in refusal("no-such-data", "--out", "missing/study.yaml")


def test_what_no_study_can_be_made_of():
    write_images(Path("one"), {"cat": 5})
    write_images(Path("few"), {"cat": 2, "dog": 9})
    Path("empty").mkdir()
    (Path("noimages") / "cat").mkdir(parents=True)
    (Path("noimages") / "cat" / "notes.txt").touch()
    for folder in ("one", "few", "empty", "noimages"):
        assert folder in refusal(folder)
    assert "fashion-mnist" in refusal("fashion-minst")
    assert "./digits" not in refusal("./digits") and "name" in refusal("digits", "--name", "a/b")
    assert not Path("study.yaml").exists()
