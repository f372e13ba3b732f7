"""How many trials share one GPU at best throughput: 1, 2, 4, 8 processes that train the study's classifier at once.

driver --warm_up--> all processes      driver --train(epochs)--> the first n of them, at once; samples of all / seconds
"""

from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from gitdist.bench.loop import augmenting, own_trainer
from gitdist.bench.report import Figure, Measurement
from gitdist.bench.setting import Setting
from gitdist.bench.timing import alternate, rate, spread
from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.spec import ResourcesSpec, Share, TrialSpec
from gitdist.study.cluster.connect import cluster_nodes, connected
from gitdist.study.scheduling.packing import find_capacity

AT_ONCE = (1, 2, 4, 8)
_EPOCHS = 2  # of each process in a turn


class CrowdTrial:
    """One trial's training on ready draws; run as a Ray actor."""

    def __init__(self, spec: TrialSpec, dataset: Path, block_size: int, cpu: float) -> None:
        """Build the trainer on this process's device."""
        set_threads(cpu)
        opened = Dataset.open(dataset)
        self._samples = len(opened.train.labels)
        self._trainer = own_trainer(spec, opened, Compute.resolve(spec.precision), block_size)

    def train(self, epochs: int) -> int:
        """Train so many epochs and return their samples."""
        for _ in range(epochs):
            self._trainer.run(1)
        return epochs * self._samples


def crowd_measurement(setting: Setting) -> Measurement:
    """Measure samples per second of all trials on one GPU; where trials have none, say so."""
    if setting.training.device.type != "cuda":
        return Measurement(figures=(), notes=("how many trials share a GPU is left out: trials have none here",))
    spec, share = setting.spec, setting.spec.resources.trial
    each = Share(cpu=share.cpu, gpu=1 / max(AT_ONCE))
    resources = ResourcesSpec(trial=each)
    with connected("local", resources, 0):
        find_capacity(cluster_nodes(), resources, 0)
        setting.say(f"starting {max(AT_ONCE)} trials on one GPU")
        actor: Any = ray.remote(num_cpus=0, num_gpus=each.gpu)(CrowdTrial)
        arguments = (augmenting(spec.trial), setting.dataset.directory, spec.stream.block_size, each.cpu)
        trials = [actor.remote(*arguments) for _ in range(max(AT_ONCE))]
        ray.get([one.train.remote(1) for one in trials])
        sides = {f"{count} trials on one GPU": _side(trials[:count]) for count in AT_ONCE}
        rates = alternate(sides, setting.repeats)
    best = max(rates, key=lambda name: spread(rates[name]).median)
    figures = tuple(Figure(name=name, spread=spread(values), unit="samples/s") for name, values in rates.items())
    return Measurement(figures=figures, notes=(f"best throughput: {best}",))


def _side(trials: list[Any]) -> Any:
    return rate(partial(_train_all, trials), torch.device("cpu"))


def _train_all(trials: list[Any]) -> int:
    return sum(ray.get([one.train.remote(_EPOCHS) for one in trials]))
