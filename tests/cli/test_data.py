import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from gitdist.cli.data import show_stats
from gitdist.cli.sources import list_sources
from gitdist.data.sources.mnist import IDX_FILES
from gitdist.errors import StudyError
from gitdist.generator.grid import GAP, LABEL_WIDTH
from gitdist.spec import StudySpec
from tests.cli.test_errors import QUICKSTART, assert_refused, gitdist


def test_ls_names_every_source():
    done = gitdist("data", "ls")
    assert done.returncode == 0, done.stderr
    assert all(source in done.stdout for source in ("digits", "fashion-mnist", "npz", "kuzushiji-49", "cifar-100"))


def test_ls_shows_a_place_as_it_is_named(tmp_path: Path, monkeypatch):
    folder = tmp_path / "of [few]" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name in IDX_FILES:
        (folder / name).touch()
    monkeypatch.setenv("GITDIST_DATA", str(folder.parent))
    console = Console(file=io.StringIO(), width=400)
    list_sources(console)
    assert str(folder) in console.file.getvalue()  # type: ignore[attr-defined]


def test_stats_shows_class_sizes_groups_and_splits(tmp_path: Path):
    done = gitdist("data", "stats", QUICKSTART, "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\d\s+(\d+)\s+(\d+)\s+(\d+)\s+(?:many|medium|few)", done.stdout, re.MULTILINE)
    sizes, validation, test = zip(*(map(int, row) for row in rows), strict=True)
    assert len(sizes) == 10 and list(sizes) == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (95, 7)
    assert set(validation) == {20} and set(test) == {60}
    assert f"training {sum(sizes)}, validation 200, test 600" in done.stdout


def write_folder(folder: Path) -> Path:
    """Write classes of 20, 6 and 3 images in three sizes, one of them grey, one of them also a test image."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (20, 6, 3)), ("test", (3, 2, 1))):
        for name, count in zip(("cat", "owl", "yak"), counts, strict=True):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                side = (72, 80, 150)[index % 3]
                pixels = rng.integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index:02d}.png")
    with Image.open(folder / "train" / "owl" / "01.png") as image:
        image.convert("L").save(folder / "train" / "owl" / "01.png")
    (folder / "test" / "yak" / "00.png").write_bytes((folder / "train" / "cat" / "04.png").read_bytes())
    return folder


def stats_of(folder: Path, results: Path, **options: Path) -> str:
    spec = StudySpec.model_validate(
        {"name": "own", "data": {"source": "images", "path": str(folder), "image_size": 96}}
    )
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    show_stats(spec, results, console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_stats_of_a_folder_of_images_tell_what_was_done_what_fits_and_what_is_there_twice(tmp_path: Path):
    shown = stats_of(write_folder(tmp_path / "own"), tmp_path)
    assert "note: images of 3 sizes, 88x80 in 13 of 35" in shown and "resized to 96x96" in shown
    assert "note: grey images made RGB: 1" in shown
    assert "suggested K: 6: above every class that is not many-shot" in shown
    assert (
        "trial.network resnet18 or resnet34 or resnet50; for MUNIT generator.num_downsample 3 (content codes of 12x12)"
        in shown
    )
    yellow = re.findall(r"\x1b\[33m(.*?)\x1b\[0m", shown)
    assert yellow == [
        "classes with fewer than 5 validation images, too few to estimate their accuracy: 3 of 3 (cat 4, owl 1, yak 1)",
        "duplicates: 1 test images are training or validation images too, byte for byte",
        "  test test/yak/00.png (yak) = training train/cat/04.png (cat)",
    ]


def test_stats_shows_groups_per_class_and_split_and_what_falls_short(tmp_path: Path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 6])
    groups = np.array([f"{label}/{index // 6}" for index, label in enumerate(labels)])
    for split, part in (("train", slice(None)), ("test", slice(None, None, 6))):
        images = rng.integers(0, 256, (len(labels), 16, 16), dtype=np.uint8)[part]
        named = {"groups": groups} if split == "train" else {}
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels[part], **named)
    chosen = f"data={{source: npz, path: {tmp_path}, profile: {{kind: step, largest: 50, factor: 1.0}}}}"
    done = gitdist("data", "stats", QUICKSTART, "--results", tmp_path, "--set", chosen)
    assert done.returncode == 0, done.stderr
    cells = [line.split()[:5] for line in done.stdout.splitlines() if re.match(r"^[012]\s", line)]
    assert cells == [["0", "48", "12", "10", "8/2/-"], ["1", "24", "6", "5", "4/1/-"], ["2", "6", "0", "1", "1/0/-"]]
    assert "0 (48 of 50), 1 (24 of 50), 2 (6 of 50)" in done.stdout
    assert "without validation images (not measured in selection): 2" in done.stdout
    assert "1 of 3 (2 0)" in done.stdout


def test_thumbnails_are_a_row_a_class_the_largest_on_top(tmp_path: Path):
    file = tmp_path / "sheet.png"
    stats_of(write_folder(tmp_path / "own"), tmp_path, thumbnails=file)
    with Image.open(file) as image:
        picture = np.asarray(image)
    side = 96 + GAP
    assert picture.shape == (3 * side, LABEL_WIDTH + 10 * side + GAP, 3)
    shown = [
        [picture[row * side, LABEL_WIDTH + GAP + column * side].min() < 255 for column in range(10)] for row in range(3)
    ]
    assert [sum(row) for row in shown] == [10, 5, 2]
    with pytest.raises(StudyError, match="--thumbnails"):
        stats_of(tmp_path / "own", tmp_path, thumbnails=tmp_path / "none" / "sheet.png")


def test_a_folder_with_an_unreadable_image_is_one_line(tmp_path: Path):
    folder = write_folder(tmp_path / "own")
    (folder / "train" / "cat" / "03.png").write_bytes(b"")
    chosen = f"data={{source: images, path: {folder}}}"
    done = gitdist("data", "stats", QUICKSTART, "--results", tmp_path, "--set", chosen)
    assert_refused(done, "train/cat/03.png")


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path):
    folder = write_folder(tmp_path / "own")
    names = {"train/cat/04.png": b"caf\xe9\n.png"}
    names |= {f"{split}/yak": "\u732b".encode() for split in ("train", "test")}
    names |= {f"{split}/owl": b":owl:[b]" for split in ("train", "test")}
    for name, other in names.items():
        (folder / name).rename(os.fsdecode(os.path.join(os.fsencode((folder / name).parent), other)))
    study = write_study(tmp_path, folder)
    command = [sys.executable, "-m", "gitdist", "data", "stats", str(study), "--results", str(tmp_path / "results")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ":owl:[b]" in done.stdout
    assert r"\u732b" in done.stdout and r"train/cat/caf\udce9\n.png (cat)" in done.stdout and done.stdout.isascii()


def write_study(folder: Path, images: Path) -> Path:
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump({"name": "own", "data": {"source": "images", "path": str(images)}}))
    return study


def test_a_class_may_be_excluded_by_its_number(tmp_path: Path):
    for exclude, code in (("[2, 7]", 0), ("['2']", 0), ("[1.5]", 2), ("[no]", 2), ("[12]", 2)):
        done = gitdist("data", "stats", QUICKSTART, "--results", tmp_path, "--set", f"data.exclude={exclude}")
        assert done.returncode == code, done.stdout + done.stderr
        assert code == 0 or "data.exclude" in done.stderr
        assert code == 2 or not re.search(r"^2\s", done.stdout, re.MULTILINE)


def test_a_list_beside_the_study_is_read_and_its_mistakes_are_one_line(tmp_path: Path):
    folder = write_folder(tmp_path / "own")
    for split in ("train", "test"):
        files = sorted((folder / split).glob("*/*.png"))
        lines = [f"{file.relative_to(folder)} {('cat', 'owl', 'yak').index(file.parent.name)}" for file in files]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    study = tmp_path / "study.yaml"
    data = {"source": "list", "path": "own", "train": "train.txt", "test": "test.txt"}
    study.write_text(yaml.safe_dump({"name": "own", "data": data}))
    done = gitdist("data", "stats", study, "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "training 23, validation 6, test 6" in done.stdout
    assert "  test test/yak/00.png (2) = training train/cat/04.png (0)" in done.stdout
    refused = gitdist("data", "stats", study, "--results", tmp_path / "results", "--thumbnails", tmp_path / "train.txt")
    assert_refused(refused, "--thumbnails", "train.txt")
    with open(tmp_path / "test.txt", "a") as file:
        file.write("\ntest/yak/01.png 2")
    done = gitdist("data", "stats", study, "--results", tmp_path / "results")
    assert_refused(done, f"{tmp_path}/test.txt, line 7: ", "test/yak/01.png")
