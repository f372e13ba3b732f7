import threading

import numpy as np
import pytest
import torch

from gitdist.trial.images import TrainingImages

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 31, 32, 96, 300])
def test_gathered_batches_are_those_of_the_device(images, count):
    indices = np.random.default_rng(1).integers(0, 300, count)

    on_device = list(TrainingImages(images, CPU).batches(indices, 32))
    gathered = list(TrainingImages(images, CPU, max_bytes=images.nbytes - 1).batches(indices, 32))

    assert len(gathered) == len(on_device) == -(-count // 32)
    assert all(torch.equal(*pair) for pair in zip(gathered, on_device, strict=True))
    gathered[0].zero_()  # a batch is the caller's own
    assert torch.equal(on_device[0], torch.from_numpy(images[indices[:32]]))


def test_few_batches_are_gathered_ahead_by_threads(images, monkeypatch):
    taken, threads = [], set()
    fill = TrainingImages._fill

    def counting(self, batch, rows):
        taken.append(len(rows))
        threads.add(threading.current_thread())
        return fill(self, batch, rows)

    monkeypatch.setattr(TrainingImages, "_fill", counting)
    batches = TrainingImages(images, CPU, max_bytes=0).batches(np.arange(300), 10)

    next(batches)
    assert len(taken) <= 4
    batches.close()
    assert len(taken) <= 4 and threading.main_thread() not in threads


def test_an_error_while_gathering_reaches_the_step(images, monkeypatch):
    def fail(self, batch, rows):
        raise OSError("the disk is gone")

    monkeypatch.setattr(TrainingImages, "_fill", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        next(TrainingImages(images, CPU, max_bytes=0).batches(np.arange(9), 4))


def test_a_map_that_fits_is_used_without_a_copy(images):
    assert TrainingImages(images, CPU)._on_device.data_ptr() == images.ctypes.data


@pytest.mark.gpu
@pytest.mark.parametrize("max_bytes", [None, 0])
def test_batches_on_a_gpu_are_those_of_the_processor(images, max_bytes):
    if not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    indices = np.random.default_rng(1).integers(0, 300, 300)

    found = list(TrainingImages(images, torch.device("cuda"), max_bytes).batches(indices, 7))

    assert all(batch.is_cuda for batch in found)
    assert torch.equal(torch.cat(found).cpu(), torch.from_numpy(images[indices]))
