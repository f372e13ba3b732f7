"""GTSRB, German traffic signs (Stallkamp et al. 2012): 26,640 training and 12,630 test images of 43 signs, RGB.

The folder is torchvision's: GTSRB/Training/00000/*.ppm with GT-00000.csv and so on, GTSRB/Final_Test/Images/*.ppm,
GT-final_test.csv. Images of 15 to 250 pixels, with their margin around the sign, are resized to 32x32 without keeping
their proportions: bilinear with antialiasing (PIL). Their order is that of the tables.

A training image is a frame of a track, a sequence of (mostly 30) frames of one physical sign: ``00003_00029.ppm`` is
frame 29 of track 3 of its class. Tracks are the groups. The test images show other signs; their tracks are unknown.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gitdist.data.sources.base import PublishedSource, SourceImages, number_groups
from gitdist.data.sources.decoding import map_images
from gitdist.errors import DataError, first_line
from gitdist.input_file import read_input
from gitdist.spec import DataSpec

_SIDE = 32
_CLASS_NAMES = (
    *(f"limit {speed}" for speed in (20, 30, 50, 60, 70, 80)),
    "limit 80 ends",
    *(f"limit {speed}" for speed in (100, 120)),
    *("no overtaking", "no overtaking by lorries", "priority at crossing", "priority road", "give way", "stop"),
    *("no vehicles", "no lorries", "no entry", "danger", "bend left", "bend right", "bends", "bumps", "slippery"),
    *("narrows on right", "road works", "traffic lights", "pedestrians", "children", "cyclists", "ice", "wild animals"),
    *("limits end", "turn right", "turn left", "ahead only", "ahead or right", "ahead or left", "keep right"),
    *("keep left", "roundabout", "overtaking allowed", "overtaking by lorries allowed"),
)


class _GtsrbSource(PublishedSource):
    def download(self, cache: Path) -> None:
        from gitdist.torchvision_cpu import torchvision  # slow to import

        for split in ("train", "test"):
            torchvision.datasets.GTSRB(str(cache), split, download=True)

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        test_table, *train_tables = files
        test = _read_table(test_table, test_table.parent / "GTSRB" / "Final_Test" / "Images")
        train = [row for table in train_tables for row in _read_table(table, table.parent)]
        tracks, track_names = number_groups([f"{file.parent.name}/{_track(file)}" for file, _ in train])
        return SourceImages(
            name=self.name,
            train_images=_read_images([file for file, _ in train]),
            train_labels=np.array([label for _, label in train], dtype=np.int64),
            test_images=_read_images([file for file, _ in test]),
            test_labels=np.array([label for _, label in test], dtype=np.int64),
            class_names=_CLASS_NAMES,
            train_groups=tracks,
            group_names=track_names,
            notes=(f"whole images resized to {_SIDE}x{_SIDE}, proportions not kept",),
        )


def _read_table(table: Path, folder: Path) -> list[tuple[Path, int]]:
    try:
        text = io.StringIO(read_input(table).decode("ascii"), newline="")
        rows = list(csv.DictReader(text, delimiter=";", skipinitialspace=True))
        return [(folder / row["Filename"], range(len(_CLASS_NAMES)).index(int(row["ClassId"]))) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        message = f"{table} must have the columns Filename and ClassId in every row, but does not ({reason})"
        raise DataError(f"{message}; download it again") from error


def _track(file: Path) -> str:
    track, separator, _ = file.stem.partition("_")
    if not separator:
        raise DataError(f"{file} must be named TRACK_FRAME.ppm; rename it, or split without tracks by data.group: none")
    return track


def _read_images(files: Sequence[Path]) -> NDArray[np.uint8]:
    images = np.empty((len(files), 3, _SIDE, _SIDE), dtype=np.uint8)

    def resize(index: int, image: Image.Image) -> None:
        resized = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        images[index] = np.asarray(resized).transpose(2, 0, 1)

    map_images(files, resize)
    return images


GTSRB = _GtsrbSource(
    title="GTSRB",
    name="gtsrb",
    files=(
        "GT-final_test.csv",
        *(f"GTSRB/Training/{label:05d}/GT-{label:05d}.csv" for label in range(len(_CLASS_NAMES))),
    ),
    cache_folder="gtsrb",
    remedy="set data.path to the folder that has GTSRB/ and GT-final_test.csv",
)
