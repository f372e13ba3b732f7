"""The training images of a trial: on its device if they fit, else gathered by threads ahead of the step.

    map of the file [N, C, H, W] --threads: the rows of a batch--> a few batches (pinned for a GPU) --copy--> device

Both ways give the same bytes.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gitdist import bounds
from gitdist.device import process_memory

_THREADS = 2
_AHEAD = 4  # batches that are gathered or being gathered


class TrainingImages:
    """Memory-mapped images, uint8 ``[N, C, H, W]``."""

    def __init__(self, images: NDArray[np.uint8], device: torch.device, max_bytes: int | None = None) -> None:
        """Put the images on the device if they have at most ``max_bytes``.

        None = ``TRAINING_SHARE`` of this process's part of a GPU's memory; a CPU uses the map itself, of any size.
        """
        if max_bytes is None:
            on_gpu = device.type != "cpu"
            max_bytes = int(bounds.TRAINING_SHARE * process_memory(device)) if on_gpu else images.nbytes
        self._images, self._device = images, device
        self._on_device = from_dlpack(images).to(device) if images.nbytes <= max_bytes else None

    def batches(self, indices: NDArray[np.int64], batch_size: int) -> Iterator[Tensor]:
        """Yield the images ``indices``, int64 ``[n]``, in batches on the device; each is the caller's own."""
        starts = range(0, len(indices), batch_size)
        if self._on_device is None:
            yield from self._gather([indices[start : start + batch_size] for start in starts])
            return
        there = torch.from_numpy(indices).to(self._device)
        for start in starts:
            yield self._on_device[there[start : start + batch_size]]

    def _gather(self, batches: list[NDArray[np.int64]]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(_THREADS) as pool:
            ahead: deque[Future[Tensor]] = deque()
            for number in range(len(batches)):
                for rows in batches[number + len(ahead) : number + _AHEAD]:
                    # Allocated here: malloc keeps freed memory for each thread that allocates.
                    ahead.append(pool.submit(self._fill, self._allocate(len(rows)), rows))
                yield ahead.popleft().result().to(self._device, non_blocking=True)

    def _allocate(self, count: int) -> Tensor:
        shape = (count, *self._images.shape[1:])
        if self._device.type == "cuda":
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.from_numpy(np.empty(shape, np.uint8))  # torch aligns memory, which malloc then hardly reuses

    def _fill(self, batch: Tensor, rows: NDArray[np.int64]) -> Tensor:
        np.take(self._images, rows, axis=0, out=batch.numpy(), mode="clip")  # "raise" would copy once more
        return batch
