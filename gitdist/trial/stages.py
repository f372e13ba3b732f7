"""A trial in two stages: the prefix, which other trials train in just the same way, and the rest, which is its own.

    epochs 1 .. n   the prefix: instance sampling, no augmentation   -> a store artefact, trained at most once
    epochs n+1 ..   whatever the trial's sampler, K and p make of it -> the trial's directory

    claim the prefix --found--> copy its checkpoint -------------------------------------> train the rest
                     --not-->   train it in the artefact's scratch, row by row --put--> copy --^
                                (from a shorter prefix on, that of a trial that switches earlier, where there is one)
                     --another trial trains it--> wait; take over where it stops

The trial that comes first trains the prefix in its own place, so nobody waits for a task that no place is left for.
Where it is killed or stopped, whoever comes next goes on from the scratch's checkpoint. The rows of the prefix are
every trial's rows; ``trained_by`` in a row says whose work it was.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gitdist.data.dataset import Dataset
from gitdist.disk import disk_trouble, write_atomic
from gitdist.spec import TrialSpec
from gitdist.store import Store, content_key
from gitdist.trial.checkpoint import checkpoints_of, load_checkpoint
from gitdist.trial.plan import draws_needed
from gitdist.trial.training import EpochRow, TrialSetting, resume

KIND = "prefix"
_FORMAT = 1


@dataclass(frozen=True)
class Prefix:
    """The first ``epochs`` of a trial, as the training that all trials with the same prefix have in common.

    ``spec`` is a trial of its own that trains the same in these epochs; what does not matter in them has its default.
    """

    spec: TrialSpec
    epochs: int

    def determined_by(self, dataset: Dataset, setting: TrialSetting) -> dict[str, Any]:
        """Return, as JSON values, everything that can influence state and rows of these epochs.

        The last bits of a sum depend on device, threads and torch's version, so these are among it.
        """
        return {
            "format": _FORMAT,
            "data": dataset.fingerprint,
            "groups": dataset.groups.rule,
            "trial": self.spec.model_dump(mode="json") | {"precision": setting.compute.precision},
            "epochs": self.epochs,
            "evaluation_every": setting.evaluation_every,
            "ekld": setting.ekld.directory.name if setting.ekld else None,
            "device": setting.compute.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def shared_prefix(spec: TrialSpec) -> Prefix | None:
    """Return what a trial trains before anything of its sampler, K and p matters; None where that is no epoch.

    The last epoch is never part of it: it alone is evaluated whatever ``evaluation_every`` says.
    """
    epochs = min(spec.switch_epoch, spec.epochs - 1)
    if epochs < 1:
        return None
    milestones = tuple(milestone for milestone in spec.lr_milestones if milestone < epochs)
    immaterial = ["sampler", "threshold", "threshold_kind", "effective_beta"]
    immaterial += [] if milestones else ["lr_decay"]
    immaterial += [] if spec.loss == "ldam" else ["ldam_margin", "ldam_scale"]
    immaterial += [] if spec.randaugment_ops else ["randaugment_magnitude"]
    defaults = {name: TrialSpec.model_fields[name].default for name in immaterial}
    length = {"epochs": epochs + 1, "switch_epoch": epochs, "lr_milestones": milestones, "fraction": 0.0}
    return Prefix(TrialSpec.model_validate({**spec.model_dump(), **defaults, **length}), epochs)


def prefix_key(spec: TrialSpec, dataset: Dataset, setting: TrialSetting) -> str | None:
    """Return the name of a trial's prefix in the store; None where it has none."""
    prefix = shared_prefix(spec)
    return content_key(KIND, prefix.determined_by(dataset, setting)) if prefix else None


def train_in_stages(
    spec: TrialSpec, dataset: Dataset, setting: TrialSetting, store: Store | None
) -> Generator[list[EpochRow], None, None]:
    """Train as ``resume`` does, the prefix out of the store or into it; the numbers are the same, bit for bit.

    Yields first the rows of all epochs that are completed already (there may be none), then the row of each epoch once
    its checkpoint is in place. Closing it early leaves the prefix to whoever waits for it.

    Args:
        spec: the trial.
        dataset: as for ``train``.
        setting: as for ``train``; its directory is needed.
        store: where prefixes are kept; None = the trial trains all of its epochs itself.

    Raises:
        StoreError: the store cannot be read or written.
        Exception: as ``train``.
    """
    assert setting.directory is not None, "a trial in stages has a directory"
    prefix = shared_prefix(spec) if store else None
    own = load_checkpoint(setting.directory) if prefix else None
    staged = prefix is not None and (own.epoch if own else 0) < prefix.epochs
    if store is not None and prefix is not None and staged:
        if setting.stream is not None:  # its blocks are made while the prefix is trained, or waited for
            setting.stream.prepare(draws_needed(spec, dataset.train.labels, dataset.class_sizes))
        yield from _take_prefix(prefix, dataset, setting, setting.directory, store)
    stage = _train(spec, dataset, setting)
    if staged:
        next(stage)  # these rows were yielded
    yield from stage


def _take_prefix(
    prefix: Prefix, dataset: Dataset, setting: TrialSetting, directory: Path, store: Store
) -> Generator[list[EpochRow], None, None]:
    """Leave the prefix's checkpoint in ``directory``; yield rows as ``train_in_stages`` does."""
    with store.claim(KIND, prefix.determined_by(dataset, setting)) as claim:
        found = claim.found
        if found is None:
            _bring(directory, claim.scratch)  # of a trial that began it without sharing
            if shorter := _find_shorter(prefix, dataset, setting, store):
                _bring(shorter, claim.scratch)
            inner = replace(setting, directory=claim.scratch, stream=None, stop_after=prefix.epochs)
            yield from _train(prefix.spec, dataset, inner)
            found = claim.put(lambda target: _bring(claim.scratch, target))
            _bring(found, directory)
        else:
            _bring(found, directory)
            checkpoint = load_checkpoint(directory)
            assert checkpoint is not None, "the store has compared its checksum"
            yield checkpoint.rows


def _train(spec: TrialSpec, dataset: Dataset, setting: TrialSetting) -> Generator[list[EpochRow], None, None]:
    completed, training = resume(spec, dataset, setting)
    yield completed
    for row in training:
        yield [row]


def _find_shorter(prefix: Prefix, dataset: Dataset, setting: TrialSetting, store: Store) -> Path | None:
    """Return the longest prefix in the store that this one begins with: that of trials that switch earlier."""
    for epochs in range(prefix.epochs - 1, 0, -1):
        shorter = shared_prefix(prefix.spec.model_copy(update={"switch_epoch": epochs}))
        assert shorter is not None, "it has at least an epoch"
        if found := store.find(KIND, shorter.determined_by(dataset, setting)):
            return found
    return None


def _bring(source: Path, target: Path) -> None:
    """Copy the newest checkpoint, unless ``target`` has one as new."""
    there = checkpoints_of(source).files()[:1]
    if there and checkpoints_of(target).newest() < checkpoints_of(source).newest():
        with disk_trouble(there[0]):
            write_atomic(target / there[0].name, there[0].read_bytes())
