"""The 1,797 handwritten digits inside scikit-learn: a data set that needs no files.

The official 8x8 images with levels 0..16 become 24x24 by bilinear interpolation and get a border of 2 pixels; levels
are stretched to 0..255. The background stays exactly 0 where all neighbours are 0. The last 60 images of each class, in
official order, are the test split.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gitdist.data.sources.base import DataSource, SourceImages
from gitdist.spec import DataSpec

_TEST_PER_CLASS = 60


class _Digits(DataSource):
    def find(self, spec: DataSpec) -> Sequence[Path]:
        return ()

    def location(self) -> str:
        return "inside scikit-learn; no files needed"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        # Slow to import.
        import torch
        from sklearn.datasets import load_digits
        from torch.nn.functional import interpolate, pad

        official = load_digits()
        levels = torch.from_numpy(official.images)[:, None] * (255 / 16)
        enlarged = interpolate(levels, size=(24, 24), mode="bilinear", align_corners=False)
        images = pad(enlarged, (2, 2, 2, 2)).round().to(torch.uint8).numpy()
        labels = official.target.astype(np.int64)
        test = np.zeros(len(labels), dtype=np.bool_)
        for digit in range(10):
            test[np.flatnonzero(labels == digit)[-_TEST_PER_CLASS:]] = True
        return SourceImages(
            name="digits",
            train_images=images[~test],
            train_labels=labels[~test],
            test_images=images[test],
            test_labels=labels[test],
            class_names=tuple(str(digit) for digit in range(10)),
        )


DIGITS = _Digits()
