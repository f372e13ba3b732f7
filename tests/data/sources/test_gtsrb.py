"""GTSRB, from small files of the official format."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gitdist.data.sources import load_source
from gitdist.data.sources.gtsrb import GTSRB
from gitdist.data.splits import split_rows
from gitdist.errors import DataError
from gitdist.spec import DataSpec, ProfileSpec


def write_gtsrb(folder: Path, tracks: int = 1, frames: int = 2) -> DataSpec:
    rng, head = np.random.default_rng(0), "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    test_folder = folder / "GTSRB" / "Final_Test" / "Images"
    test_folder.mkdir(parents=True)
    test_rows = []
    for label in range(43):
        train_folder = folder / "GTSRB" / "Training" / f"{label:05d}"
        train_folder.mkdir(parents=True)
        rows = []
        for track, index in product(range(tracks), range(frames)):
            pixels = rng.integers(0, 256, (20 + label, 25, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(train_folder / f"{track:05d}_{index:05d}.ppm")
            rows.append(f"{track:05d}_{index:05d}.ppm;25;{20 + label};5;5;20;15;{label}")
        (train_folder / f"GT-{label:05d}.csv").write_text("\r\n".join([head, *rows]) + "\r\n")
        Image.fromarray(np.full((32, 32, 3), label, np.uint8)).save(test_folder / f"{42 - label:05d}.ppm")
        test_rows.append(f"{42 - label:05d}.ppm;32;32;5;5;20;15;{label}")
    (folder / "GT-final_test.csv").write_text("\r\n".join([head, *reversed(test_rows)]) + "\r\n")
    return DataSpec(source="gtsrb", path=str(folder))


def test_gtsrb_is_the_whole_images_of_the_tables_resized(tmp_path: Path) -> None:
    source = load_source(write_gtsrb(tmp_path))
    assert source.train_labels.tolist() == [label for label in range(43) for _ in range(2)]
    assert source.test_labels.tolist() == list(range(42, -1, -1))
    assert source.test_images[:, 0, 5, 5].tolist() == list(range(42, -1, -1))
    with Image.open(tmp_path / "GTSRB/Training/00007/00000_00001.ppm") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(source.train_images[15].transpose(1, 2, 0), expected)
    assert len(set(source.class_names)) == 43 and source.class_names[14] == "stop"


def test_frames_of_one_track_of_gtsrb_never_lie_in_two_splits(tmp_path: Path) -> None:
    spec = write_gtsrb(tmp_path, tracks=6, frames=4)
    source = load_source(spec)
    assert source.train_groups is not None and len(source.group_names) == 43 * 6
    rows = split_rows(source, spec.model_copy(update={"profile": ProfileSpec(kind="power", largest=12, smallest=5)}))
    train, validation = source.train_groups[rows.train], source.train_groups[rows.validation]
    assert not np.intersect1d(train, validation).size
    assert np.bincount(source.train_labels[rows.train]).tolist() == [12, *[5] * 42]
    assert {len(np.unique(train[source.train_labels[rows.train] == label])) for label in range(43)} == {5}
    assert load_source(spec.model_copy(update={"group": "none"})).train_groups is None


def test_a_training_image_of_gtsrb_without_a_track_is_one_line(tmp_path: Path) -> None:
    spec = write_gtsrb(tmp_path)
    table = tmp_path / "GTSRB/Training/00003/GT-00003.csv"
    table.write_text(table.read_text().replace("00000_00001", "00001"))
    with pytest.raises(DataError, match="00003/00001.ppm must be named TRACK_FRAME.ppm"):
        load_source(spec)


@pytest.mark.parametrize("name", ["GT-final_test.csv", "GTSRB/Training/00003/GT-00003.csv"])
def test_a_damaged_table_is_one_line(tmp_path: Path, name: str) -> None:
    spec = write_gtsrb(tmp_path)
    (tmp_path / name).write_text("Filename;Class\n00000_00000.ppm;3\n")
    with pytest.raises(DataError, match=f"{name} must have the columns") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["43", "-1", "99999999999999999999", "x", "\xff" * 9000])
def test_a_label_that_is_no_class_is_one_short_line(tmp_path: Path, label: str) -> None:
    spec = write_gtsrb(tmp_path)
    table = tmp_path / "GTSRB/Training/00003/GT-00003.csv"
    table.write_text(table.read_text().replace(";3\n", f";{label}\n"), encoding="latin1")
    with pytest.raises(DataError, match="GT-00003.csv must have the columns") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_missing_image_of_a_table_is_one_line(tmp_path: Path) -> None:
    spec = write_gtsrb(tmp_path)
    (tmp_path / "GTSRB/Training/00042/00000_00000.ppm").unlink()
    with pytest.raises(DataError, match="cannot read .*00042/00000_00000.ppm: No such file"):
        load_source(spec)
    assert len(GTSRB.find(DataSpec(path=str(tmp_path)))) == 44
