"""Peak memory of each part that handles many or large images, against its bound, at a tenth of the bounds.

2,000 generated photos of 224 pixels (0.3 GB decoded) in 20 classes. Each part runs in a process of its own. What counts
is anonymous memory beyond that before the part: the system can drop pages of a mapped file at any time.

    python studies/benchmarks/memory.py [--images N]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Figure, say, table
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from gitdist import bounds
from gitdist.data.dataset import Dataset, prepare
from gitdist.data.duplicates import find_duplicates
from gitdist.data.sources import source_digest
from gitdist.device import Compute
from gitdist.generator.base import Generator
from gitdist.spec import DataSpec
from gitdist.store import Store
from gitdist.stream.blocks import ENCODE_BATCH, BlockKey, BlockMaker
from gitdist.trial.ekld import EkldRequest, ekld_set
from gitdist.trial.evaluation import evaluate
from gitdist.trial.images import TrainingImages

SIDE, CLASSES, SCALE = 224, 20, 10
IMAGE_BYTES = 3 * SIDE * SIDE
BATCH_SIZE = 32
BATCHES_HELD = 6  # four ahead, and two in use
CODE_BYTES = 4 * 64 * (SIDE // 4) ** 2  # of the codes below
CODES_BYTES = 2**27
CHUNKS_HELD = 5  # of codes: a new one, the one before, what is taken from one, and those of a block, twice
ROTATION = 26  # chunks that the rotation of one takes
MEBIBYTE = 2**20


class WideCodes(Generator):
    """Codes as large as those of a MUNIT with 64 channels, without its arithmetic."""

    device = torch.device("cpu")

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return float32 codes ``[N, 64, H / 4, W / 4]``."""
        small = nn.functional.avg_pool2d(images[:, :1].float(), 4)
        return small.repeat(1, 64, 1, 1)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return grey images."""
        return codes[:, :3].to(torch.uint8).repeat(1, 1, 4, 4)


class PeakMemory:
    """The anonymous memory of this process, sampled on a thread until ``stop``."""

    def __init__(self) -> None:
        """Begin; what is held now does not count."""
        self._start = self._peak = _anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> int:
        """Return the most bytes beyond those at the start."""
        self._ended.set()
        self._thread.join()
        return self._peak - self._start

    def _sample(self) -> None:
        while not self._ended.wait(0.002):
            self._peak = max(self._peak, _anonymous_bytes())


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


Part = tuple[Callable[[], object], int]  # the work, and its bound in bytes


def decode(spec: DataSpec, folder: Path) -> Part:
    """Decode the photos and compute their digest."""
    return lambda: source_digest(spec), bounds.DECODED_BYTES


def prepare_rotated(spec: DataSpec, folder: Path) -> Part:
    """Prepare the data set under a rotation; the photos are decoded once more."""
    return lambda: prepare(spec, Store(folder / "store")), max(bounds.DECODED_BYTES, ROTATION * bounds.CHUNK_BYTES)


def compare(spec: DataSpec, folder: Path) -> Part:
    """Look for duplicates."""
    dataset = _dataset(folder)
    return lambda: find_duplicates(dataset), bounds.CHUNK_BYTES


def gather(spec: DataSpec, folder: Path) -> Part:
    """Read an epoch of training images that are gathered ahead."""
    dataset = _dataset(folder)
    images = TrainingImages(dataset.train.images, torch.device("cpu"), max_bytes=0)
    indices = np.random.default_rng(0).permutation(len(dataset.train.labels))
    return lambda: deque(images.batches(indices, BATCH_SIZE), maxlen=1), BATCHES_HELD * BATCH_SIZE * IMAGE_BYTES


def code(spec: DataSpec, folder: Path) -> Part:
    """Make two blocks of each class with few codes kept."""
    maker = BlockMaker(WideCodes(), _dataset(folder).train, 0, 64, max_code_bytes=CODES_BYTES // SCALE)

    def work() -> None:
        for index, label in product(range(2), range(CLASSES)):
            maker.make(BlockKey(label, index))

    return work, CODES_BYTES // SCALE + CHUNKS_HELD * ENCODE_BATCH * CODE_BYTES


def measure_ekld(spec: DataSpec, folder: Path) -> Part:
    """Evaluate on transformations that are not stored."""
    dataset, compute = _dataset(folder), Compute.resolve("float32", "cpu")
    request = EkldRequest(split="test", images_per_class=10, transformations=10, seed=0)
    pairs = ekld_set(dataset, request, Store(folder / "ekld"))
    model: Any = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
    batch_bytes = 256 * 4 * IMAGE_BYTES
    return lambda: evaluate(
        model, dataset.test, pairs, dataset, compute
    ), ROTATION * bounds.CHUNK_BYTES + 3 * batch_bytes


PARTS: dict[str, Callable[[DataSpec, Path], Part]] = {
    "decoded photos": decode,
    "preparation": prepare_rotated,
    "duplicates": compare,
    "training batches": gather,
    "content codes": code,
    "eKLD images": measure_ekld,
}
"""They run in this order, in the same folder."""


def _dataset(folder: Path) -> Dataset:
    dataset = Dataset.open(next((folder / "store" / "dataset").iterdir()))
    assert len(dataset.train.labels) and len(dataset.validation.labels)  # which opens them
    return dataset


def write_photos(folder: Path, count: int) -> None:
    """Write JPEG files of random soft colours, the same number in each class."""
    rng = np.random.default_rng(0)
    for index in range(count):
        soft: NDArray[np.uint8] = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        file = folder / f"class {index % CLASSES}" / f"{index:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(soft).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(file)


def run_part(name: str, folder: Path) -> None:
    """Run one part in this process and print its peak and its bound as JSON."""
    for bound in ("DECODED_BYTES", "CHUNK_BYTES", "PICTURE_BYTES"):
        setattr(bounds, bound, getattr(bounds, bound) // SCALE)
    bounds.EKLD_BYTES = 0
    spec = DataSpec(source="images", path=str(folder / "photos"), image_size=SIDE, nuisance="rotation")
    work, bound_bytes = PARTS[name](spec, folder)
    peak = PeakMemory()
    work()
    print(json.dumps([peak.stop(), bound_bytes]))


def main() -> None:
    """Write the photos, run each part and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=2000, metavar="N", help="number of photos")
    options.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"), help="run one part in this process")
    given = options.parse_args()
    if given.part:
        run_part(given.part[0], Path(given.part[1]))
        return
    figures = []
    with tempfile.TemporaryDirectory() as name:
        write_photos(Path(name) / "photos", given.images)
        say(f"{given.images:,} photos, {given.images * IMAGE_BYTES / MEBIBYTE:,.0f} MiB decoded; bounds / {SCALE}")
        for part in PARTS:
            command = [sys.executable, __file__, "--part", part, name]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, "TMPDIR": name}
            )
            peak, bound = json.loads(done.stdout.splitlines()[-1])
            figures.append(Figure(name=part, values=[peak / MEBIBYTE], unit="MiB", rule="<=", target=bound / MEBIBYTE))
    Console().print(table("peak of anonymous memory, and its bound", figures))
    sys.exit(0 if all(figure.met for figure in figures) else 1)


if __name__ == "__main__":
    main()
