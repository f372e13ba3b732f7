"""Training samples/s: gitdist's loop against the bare network step on ready tensors, and against the original loop.

One epoch of the study's trial in one process with a trial's threads, augmenting from the first epoch; the draws come
from blocks that exist. The loop has the training images on the device, or they are gathered ahead as if they were too
many for it. The original loop mixes nothing in. On a GPU also 1, 2, 4, 8 processes that train at once.

    python studies/benchmarks/training.py [--study FILE] [--set FIELD=VALUE] [--repeats N]
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch
from harness import Figure, Setting, alternate, figures_of, parser, quotients, rate, run, say
from original import OriginalTrainer
from torch import Tensor

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.generator.oracle import IdentityGenerator
from gitdist.networks.classifier import compiled, to_device
from gitdist.spec import ResourcesSpec, TrialShare, TrialSpec
from gitdist.stream.blocks import Block, BlockKey, BlockMaker
from gitdist.stream.draw_stream import DrawStream
from gitdist.study.cluster.connect import cluster_nodes, connected
from gitdist.study.scheduling.packing import find_capacity
from gitdist.trial.checkpoint import fresh_classifier
from gitdist.trial.plan import build_loss
from gitdist.trial.training import EpochTrainer

LOOP, BARE, ORIGINAL = "gitdist's loop", "bare step", "original loop"
GATHERED = "gitdist's loop, batches gathered ahead"
BLOCKS_PER_CLASS = 4
AT_ONCE = (1, 2, 4, 8)  # processes on one GPU
CROWD_EPOCHS = 2  # of each process in a turn


class ReadyBlocks:
    """An endless block source that repeats a few blocks of each class; see ``BlockSource``."""

    generated = 0
    waited_s = 0.0

    def __init__(self, maker: BlockMaker, classes: Sequence[int]) -> None:
        """Make the blocks."""
        self.layout = maker.layout
        self._blocks = {
            index: [maker.make(BlockKey(index, number)) for number in range(BLOCKS_PER_CLASS)] for index in classes
        }

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``."""
        return [self._blocks[key.class_index][key.index % BLOCKS_PER_CLASS] for key in keys]

    def plan(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: all blocks exist."""

    def request(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: all blocks exist."""

    def release(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: all blocks stay."""

    def close(self) -> None:
        """Do nothing."""


def ready_stream(dataset: Dataset, block_size: int) -> DrawStream:
    """Return a stream of repeated training images for all classes that have images."""
    classes = [index for index, size in enumerate(dataset.class_sizes) if size]
    maker = BlockMaker(IdentityGenerator(), dataset.train, 0, block_size)
    return DrawStream(ReadyBlocks(maker, classes), dataset.num_classes, 0)


def augmenting(spec: TrialSpec) -> TrialSpec:
    """Return the trial with its augmentation on from the first epoch, for all classes."""
    return spec.model_copy(update={"switch_epoch": 0, "threshold": None, "fraction": spec.fraction or 0.5})


def loop_trainer(
    spec: TrialSpec, dataset: Dataset, compute: Compute, block_size: int, dataset_bytes: int | None = None
) -> EpochTrainer:
    """Return gitdist's trainer on ready blocks."""
    stream, model = ready_stream(dataset, block_size), fresh_classifier(spec, dataset)
    return EpochTrainer(spec, dataset, stream, model, compute, dataset_bytes)


class CrowdTrial:
    """One of several processes that train at once; run as a Ray actor."""

    def __init__(self, spec: TrialSpec, dataset: Path, block_size: int, cpu: float) -> None:
        set_threads(cpu)
        opened = Dataset.open(dataset)
        self._num_samples = len(opened.train.labels)
        self._trainer = loop_trainer(spec, opened, Compute.resolve(spec.precision), block_size)

    def train(self, epochs: int) -> int:
        """Train some epochs and return the number of samples."""
        for _ in range(epochs):
            self._trainer.run(1)
        return epochs * self._num_samples


def measure(setting: Setting) -> list[Figure]:
    """Compare samples per second over an epoch."""
    set_threads(setting.spec.resources.trial.cpu)
    spec, dataset, compute = augmenting(setting.spec.trial), setting.dataset, setting.training
    num_samples = len(dataset.train.labels)
    say(f"training epochs of {num_samples:,} samples")

    def epochs(dataset_bytes: int | None) -> Callable[[], int]:
        loop = loop_trainer(spec, dataset, compute, setting.block_size, dataset_bytes)

        def epoch() -> int:
            loop.run(1)
            return num_samples

        return epoch

    sides = {LOOP: rate(epochs(None), compute.device), GATHERED: rate(epochs(0), compute.device)}
    sides[BARE] = rate(bare_steps(spec, dataset, compute), compute.device)
    for num_workers in (0, max(2, len(os.sched_getaffinity(0)))):
        trainer = OriginalTrainer(spec, dataset, compute.device, num_workers)
        name = f"{ORIGINAL}, {num_workers} DataLoader workers"
        sides[name] = rate(partial(trainer.run, 1), compute.device)
    rates = alternate(sides, setting.repeats)
    fastest = max((name for name in rates if name.startswith(ORIGINAL)), key=lambda name: median(rates[name]))
    over_original, target = quotients(rates[LOOP], rates[fastest]), 1.8 if compute.bf16 else 1.2
    return [
        *figures_of(rates, "samples/s"),
        Figure(name=f"{GATHERED} / {LOOP}", values=quotients(rates[GATHERED], rates[LOOP]), target=0.95),
        Figure(name=f"{LOOP} / {BARE}", values=quotients(rates[LOOP], rates[BARE]), target=0.9),
        Figure(name=f"{LOOP} / {fastest}", values=over_original, target=target),
        *(crowd(setting, spec) if compute.device.type == "cuda" else ()),
    ]


def bare_steps(spec: TrialSpec, dataset: Dataset, compute: Compute) -> Callable[[], int]:
    """Return one epoch of steps whose inputs are on the device in the network's layout."""
    model = to_device(fresh_classifier(spec, dataset), compute.device).train()
    forward = compiled(model, spec.batch_size) if spec.compile else model
    loss = build_loss(spec, dataset.class_sizes, 1, compute.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True
    )
    batches: list[tuple[Tensor, Tensor]] = []
    order = torch.randperm(len(dataset.train.labels), generator=torch.Generator().manual_seed(0)).numpy()
    for start in range(0, len(order), spec.batch_size):
        indices = order[start : start + spec.batch_size]
        images = torch.from_numpy(dataset.train.images[indices]).to(compute.device).float().div_(255).sub_(0.5)
        labels = torch.from_numpy(dataset.train.labels[indices]).to(compute.device)
        batches.append((images.contiguous(memory_format=torch.channels_last), labels))

    def steps() -> int:
        for inputs, labels in batches:
            with compute.autocast():
                logits = forward(inputs)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(logits, labels))
            optimizer.step()
        return len(order)

    return steps


def crowd(setting: Setting, spec: TrialSpec) -> list[Figure]:
    """Measure samples/s of 1, 2, 4, 8 processes on one GPU, all together."""
    share = TrialShare(cpu=setting.spec.resources.trial.cpu, gpu=1 / max(AT_ONCE))
    resources = ResourcesSpec(trial=share)
    with connected("local", resources, 0):
        find_capacity(cluster_nodes(), resources, 0)
        say(f"starting {max(AT_ONCE)} trials on one GPU")
        actor: Any = ray.remote(num_cpus=0, num_gpus=share.num_gpus)(CrowdTrial)
        arguments = (spec, setting.dataset.directory, setting.block_size, share.cpu)
        trials = [actor.remote(*arguments) for _ in range(max(AT_ONCE))]
        ray.get([trial.train.remote(1) for trial in trials])

        def train(number: int) -> int:
            return sum(ray.get([trial.train.remote(CROWD_EPOCHS) for trial in trials[:number]]))

        sides = {f"{number} trials on one GPU": rate(partial(train, number), torch.device("cpu")) for number in AT_ONCE}
        return figures_of(alternate(sides, setting.repeats), "samples/s")


if __name__ == "__main__":
    run(parser(__doc__, repeats=3).parse_args(), measure)
