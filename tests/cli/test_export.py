"""``gitdist export | predict`` on a study that has ended."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gitdist.study.files.layout import StudyPaths
from tests.cli.test_errors import assert_refused, gitdist
from tests.study.ended_study import NAME, give_weights, make_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a study of three trials, the last of which is the best one, and a baseline."""
    results = tmp_path_factory.mktemp("ended")
    give_weights(make_study(results))
    return results


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("images") / "a [b].png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)).save(file)
    return file


def run(results: Path, command: str, *arguments: object):
    return gitdist(command, NAME, *arguments, "--results", results)


def test_the_best_trial_is_exported_unless_another_or_the_baseline_is_named(results, tmp_path):
    for trial, arguments in (("2", []), ("0", ["--trial", 0]), ("baseline", ["--baseline"])):
        file = tmp_path / f"{trial}.safetensors"
        done = run(results, "export", "--out", file, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1 and str(file) in done.stdout and "bf16" in done.stdout
        metadata = json.loads(file.with_suffix(".json").read_text())
        assert file.exists() and (metadata["study"], metadata["trial"]) == (NAME, trial)


def test_what_cannot_be_exported_is_one_line_and_writes_nothing(results, tmp_path):
    for arguments, words in (
        ([], [".pt2", "model.pkl"]),
        (["--trial", 3], ["no trial 3"]),
        (["--trial", 1, "--baseline"], ["--trial 1", "--baseline"]),
    ):
        out = tmp_path / ("model.pt2" if arguments else "model.pkl")
        assert_refused(run(results, "export", "--out", out, *arguments), *words)
    study = StudyPaths.at(results, NAME)
    link = tmp_path / "link.pt2"
    link.symlink_to(study.spec)
    before = study.spec.read_bytes()
    assert_refused(run(results, "export", "--out", link), "--out", str(link))
    assert study.spec.read_bytes() == before and list(tmp_path.iterdir()) == [link]
    assert_refused(gitdist("export", "none", "--out", tmp_path / "x.pt2", "--results", results), "none")


def test_a_prediction_is_a_line_or_all_probabilities(results, image):
    shown = run(results, "predict", image, "--json")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert (document["study"], document["trial"]) == (NAME, "2")
    (answer,) = document["images"]
    assert answer["image"] == str(image) and len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["probability"] == answer["probabilities"][answer["class"]] == max(answer["probabilities"].values())
    done = run(results, "predict", image.parent, image)
    line = f"{image}  {answer['class']}  {answer['probability']:.4f}\n"
    assert (done.returncode, done.stdout) == (0, 2 * line)
    other = json.loads(run(results, "predict", image, "--json", "--trial", 0).stdout)
    assert other["trial"] == "0" and other["images"] != document["images"]


def test_a_damaged_image_is_one_line(results, image, tmp_path):
    (tmp_path / "damaged.png").write_bytes(image.read_bytes()[:100])
    done = run(results, "predict", image, tmp_path / "damaged.png")
    assert_refused(done, "damaged.png")
    assert done.stdout == ""
    assert_refused(run(results, "predict", tmp_path / "none"), "none")
    assert_refused(run(results, "predict", ""), "IMAGE", "empty")


def test_a_store_that_has_lost_the_data_set_prepares_it_again(results, image, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    shutil.rmtree(copy / "store" / "dataset")
    there, here = (run(place, "predict", image) for place in (results, copy))
    assert (here.returncode, here.stdout) == (0, there.stdout)
