"""A process that trains and kills itself: ``python -m tests.trial.trainee DATASET TRIAL row|take|file NUMBER``.

``row 2`` dies after the second row of this process, ``take 5`` in the middle of an epoch, before the fifth batch of
draws of this process arrives, ``file 3`` before it touches a file of the trial for the third time; number 0 never dies.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gitdist.data.dataset import Dataset
from gitdist.stream.draw_stream import DrawStream
from gitdist.trial.training import TrialSetting, train
from tests.trial.toys import compute, short_spec, stream_of

_TOUCHES = {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename"}


class Countdown:
    """Kills this process at the given count."""

    def __init__(self, count: int) -> None:
        self._left = count

    def tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(dataset_directory: str, trial: str, moment: str, number: str) -> None:
    torch.set_num_threads(1)
    dataset = Dataset.open(Path(dataset_directory))
    takes, rows, files = (Countdown(int(number) if moment == name else 0) for name in ("take", "row", "file"))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TOUCHES and str(arguments[0]).startswith(trial):
            files.tick()

    sys.addaudithook(watch)

    class MortalStream(DrawStream):
        def take(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
            takes.tick()
            return super().take(labels)

    stream = stream_of(dataset, kind=MortalStream)
    for _ in train(short_spec(), dataset, TrialSetting(compute=compute(), stream=stream, directory=Path(trial))):
        rows.tick()


if __name__ == "__main__":
    main(*sys.argv[1:])
