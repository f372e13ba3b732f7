"""Training: gitdist's loop against the bare network step on ready tensors, and against the original loop."""

import os

import torch
from torch import Tensor

from gitdist.bench.crowd import crowd_measurement
from gitdist.bench.loop import augmenting, own_trainer
from gitdist.bench.original_loop import OriginalTrainer
from gitdist.bench.report import Figure, Measurement, Verdict
from gitdist.bench.setting import Setting
from gitdist.bench.timing import Side, alternate, quotients, rate, spread
from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.networks.classifier import compiled, to_device
from gitdist.spec import TrialSpec
from gitdist.trial.plan import build_loss
from gitdist.trial.training import fresh_classifier

LOOP, BARE = "gitdist's loop, augmenting", "bare network step on ready tensors"
_WORKERS = (0, 2, 4, 8)  # of the original DataLoader, as far as there are cores: the fastest is compared


def measure(setting: Setting) -> Measurement:
    """Compare samples per second over an epoch of the study's trial, one process, the threads that a trial has."""
    set_threads(setting.spec.resources.trial.cpu)
    spec, dataset, compute = augmenting(setting.spec.trial), setting.dataset, setting.training
    setting.say(f"training epochs of {len(dataset.train.labels):,} samples")
    num_workers, fastest = _fastest_original(spec, dataset, compute)
    original = f"original loop, {num_workers} DataLoader workers"
    sides = {
        LOOP: _own(setting, spec),
        BARE: _bare_steps(spec, dataset, compute),
        original: fastest,
    }
    rates = alternate(sides, setting.repeats)
    figures = [Figure(name=name, spread=spread(values), unit="samples/s") for name, values in rates.items()]
    over_bare, over_original = (spread(quotients(rates[LOOP], rates[other])) for other in (BARE, original))
    verdicts = (
        Verdict(name="gitdist's loop / bare step", spread=over_bare, rule=">=", target=0.9),
        Verdict(
            name="gitdist's loop / original loop", spread=over_original, rule=">=", target=1.8 if compute.bf16 else 1.2
        ),
    )
    crowd = crowd_measurement(setting)
    return Measurement(figures=(*figures, *crowd.figures), verdicts=verdicts, notes=crowd.notes)


def _own(setting: Setting, spec: TrialSpec) -> Side:
    trainer = own_trainer(spec, setting.dataset, setting.training, setting.spec.stream.block_size)

    def epoch() -> int:
        trainer.run(1)
        return len(setting.dataset.train.labels)

    return rate(epoch, setting.training.device)


def _bare_steps(spec: TrialSpec, dataset: Dataset, compute: Compute) -> Side:
    """Return the side that makes as many steps with inputs that are on the device in the network's layout."""
    model = to_device(fresh_classifier(spec, dataset), compute.device).train()
    forward = compiled(model, spec.batch_size) if spec.compile else model
    loss = build_loss(spec, dataset.class_sizes, 1, compute.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True
    )
    batches = _ready_batches(spec, dataset, compute)

    def steps() -> int:
        for inputs, labels in batches:
            with compute.autocast():
                logits = forward(inputs)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(logits, labels))
            optimizer.step()
        return sum(len(labels) for _, labels in batches)

    return rate(steps, compute.device)


def _ready_batches(spec: TrialSpec, dataset: Dataset, compute: Compute) -> list[tuple[Tensor, Tensor]]:
    count = len(dataset.train.labels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    batches = []
    for start in range(0, count, spec.batch_size):
        rows = order[start : start + spec.batch_size]
        images = torch.from_numpy(dataset.train.images[rows]).to(compute.device).float().div_(255).sub_(0.5)
        labels = torch.from_numpy(dataset.train.labels[rows]).to(compute.device)
        batches.append((images.contiguous(memory_format=torch.channels_last), labels))
    return batches


def _original(spec: TrialSpec, dataset: Dataset, compute: Compute, num_workers: int) -> Side:
    trainer = OriginalTrainer(spec, dataset, compute.device, num_workers)
    return rate(lambda: trainer.run(1), compute.device)


def _fastest_original(spec: TrialSpec, dataset: Dataset, compute: Compute) -> tuple[int, Side]:
    """Return the original loop with its fastest number of DataLoader workers, these alive and warm."""
    most = max(2, len(os.sched_getaffinity(0)))
    sides = {workers: _original(spec, dataset, compute, workers) for workers in _WORKERS if workers <= most}
    rates = alternate(sides, repeats=1)
    best = max(sides, key=lambda workers: rates[workers])
    return best, sides[best]
