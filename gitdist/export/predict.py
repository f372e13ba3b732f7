"""Predictions of a trained classifier for image files, which are decoded as a data source decodes its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.decoding import ImageDecoder
from gitdist.data.sources.images import find_images
from gitdist.errors import DataError
from gitdist.export.model import TrainedModel

_CHUNK = 256  # images in memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The answer for one image; ``probabilities`` float32 ``[num_classes]``."""

    file: Path
    class_names: tuple[str, ...]
    probabilities: NDArray[np.float32]

    @property
    def best(self) -> tuple[str, float]:
        """The most probable class, and its probability."""
        index = int(self.probabilities.argmax())
        return self.class_names[index], float(self.probabilities[index])


def predict_files(model: TrainedModel, files: Sequence[Path]) -> Iterator[Prediction]:
    """Yield the prediction for each image file.

    Raises:
        DataError: a file cannot be read or is damaged, or the network's images are not square.
    """
    decoder = _decoder(model.image_shape)
    for start in range(0, len(files), _CHUNK):
        chunk = files[start : start + _CHUNK]
        images, _ = decoder.decode(chunk)
        for file, probabilities in zip(chunk, model.probabilities(images), strict=True):
            yield Prediction(file=file, class_names=model.class_names, probabilities=probabilities)


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Return the image files among ``paths``: of a folder those in it and below it, by path.

    Raises:
        DataError: a path is missing, or a folder has no image or one of a format that is not read.
    """
    return [file for path in paths for file in (find_images(path) if path.is_dir() else [path])]


def _decoder(image_shape: tuple[int, int, int]) -> ImageDecoder:
    channels, height, width = image_shape
    if height != width or channels not in (1, 3):
        raise DataError(
            f"image files become square grey or RGB images, but the classifier takes {list(image_shape)} (C, H, W); "
            "export the model and give it arrays"
        )
    mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    return ImageDecoder(mode=mode, side=height)
