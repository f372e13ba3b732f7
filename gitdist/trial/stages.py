"""A trial in two stages: the prefix, which other trials train in just the same way, and the rest, which is its own.

    epochs 1 .. n   the prefix: instance sampling, no augmentation -> a store artifact, trained at most once
    epochs n+1 ..   what the trial's sampler, K and p make of it   -> the trial's directory

    lock the prefix ---found---> copy its checkpoint -----------------------------------------> train the rest
                     --free----> train its next epoch in the artifact's scratch directory
                                 release the lock ---> yield the row -------------------------> lock again
                     --another trial's--> yield no row, pause --------------------------------> lock again

The trial that comes first trains the prefix in its own process, so no trial waits for a task that has no free CPU.
No trial holds the lock while rows are yielded, for the reader may stop reading. A builder resumes the training that it
has in memory if the newest checkpoint in the scratch directory is still its own. If a builder is killed or does not
come back for a while, another trial resumes from that checkpoint. The rows of the prefix are every trial's rows;
``trained_by`` in a row names the trial that trained it. Prefixes of different lengths are different artifacts: a longer
one resumes from a shorter one that is finished, but not from one that is being trained.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gitdist.data.dataset import Dataset
from gitdist.networks import network_version
from gitdist.spec import TrialSpec
from gitdist.store import Artifact, Store
from gitdist.trial.canonical import unread_fields
from gitdist.trial.checkpoint import checkpoints_of, copy_newest, load_checkpoint
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.mixing import draws_needed
from gitdist.trial.training import TrialSetting, resume_training

PREFIX = "prefix"  # kind of the store's artifacts
_FORMAT = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0  # between two attempts to lock a prefix that another trial trains
_BUILDER_TIMEOUT_S = 5.0  # for a builder that trains no epoch: its driver may be busy


@dataclass(frozen=True)
class Prefix:
    """The first ``epochs`` of a trial, as the training that all trials with the same prefix have in common.

    ``spec`` is a trial that trains the same in these epochs; what does not matter in them has its default.
    """

    spec: TrialSpec
    epochs: int

    def determined_by(self, dataset: Dataset, setting: TrialSetting) -> dict[str, Any]:
        """Return, as JSON values, everything that can influence state and rows of these epochs.

        The last bits of a sum depend on device, threads and torch's version, so these are included.
        """
        # The content of a file determines the training, not its path.
        pretrained = {"pretrained": setting.weights.digest} if setting.weights else {}
        return {
            "format": _FORMAT,
            "data": dataset.fingerprint,
            "groups": dataset.groups.rule,
            "trial": self.spec.model_dump(mode="json") | {"precision": setting.compute.precision, **pretrained},
            "network_version": network_version(self.spec.network),
            "epochs": self.epochs,
            "evaluation_every": setting.evaluation_every,
            "ekld": setting.ekld.directory.name if setting.ekld else None,
            "device": setting.compute.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def shared_prefix(spec: TrialSpec) -> Prefix | None:
    """Return what a trial trains before its sampler, K, p and deferred weights matter; None if that is no epoch.

    The last epoch is never part of it: it alone is evaluated whatever ``evaluation_every`` says.
    """
    epochs = min(spec.switch_epoch, spec.epochs - 1)
    if epochs < 1:
        return None
    milestones = tuple(milestone for milestone in spec.lr_milestones if milestone < epochs)
    length = {"epochs": epochs + 1, "switch_epoch": epochs, "lr_milestones": milestones, "fraction": 0.0}
    unread = unread_fields(spec.model_copy(update=length), switched=False, augmented=False)
    defaults = {name: TrialSpec.model_fields[name].default for name in unread}
    return Prefix(TrialSpec.model_validate({**spec.model_dump(), **defaults, **length}), epochs)


def train_in_stages(
    spec: TrialSpec,
    dataset: Dataset,
    setting: TrialSetting,
    store: Store | None,
    on_prefix: Callable[[str, int], None] = lambda key, epochs: None,
) -> Generator[list[EpochRow], None, None]:
    """Train as ``resume_training`` does, the prefix out of the store or into it; the numbers are the same, bit for bit.

    Yields first the rows of all epochs that are completed already (there may be none), then those of each epoch once
    its checkpoint is written, and every few seconds none while another trial trains the prefix. A trial that has begun
    the prefix alone resumes alone.

    Raises:
        StoreError: the store cannot be read or written.
        Exception: as ``train``.
    """
    assert setting.directory is not None, "a trial in stages has a directory"
    prefix = shared_prefix(spec) if store and load_checkpoint(setting.directory) is None else None
    if store and prefix:
        if setting.stream is not None:  # its blocks are made while the prefix is trained, or waited for
            setting.stream.plan(draws_needed(spec, dataset.train.labels, dataset.class_sizes))
        yield from _take_prefix(_PrefixBuilder(prefix, dataset, setting, store), setting, on_prefix)
    completed, training = resume_training(spec, dataset, setting, announce=prefix is None)
    if prefix is None:
        yield completed
    for row in training:
        yield [row]


def _take_prefix(
    builder: "_PrefixBuilder", setting: TrialSetting, on_prefix: Callable[[str, int], None]
) -> Generator[list[EpochRow], None, None]:
    """Copy the prefix's checkpoint into the setting's directory; yield rows as ``train_in_stages`` does."""
    assert setting.directory is not None
    num_yielded, pause_s = 0, _FIRST_PAUSE_S
    while True:
        if setting.check:
            setting.check()
        with builder.store.lock(PREFIX, builder.determined_by, blocking=False) as artifact:
            has_worked = builder.advance(artifact)
            found = artifact.path if artifact else None
        checkpoint = None
        if found:
            on_prefix(found.name, builder.prefix.epochs)
            copy_newest(found, setting.directory)
            checkpoint = load_checkpoint(setting.directory)  # None if the prefix has just been removed
        # A builder that misses its turn once need not wait: another trial checks whether the builder is still there.
        if has_worked or checkpoint or pause_s > _FIRST_PAUSE_S:
            rows = checkpoint.rows if checkpoint else builder.rows
            yield rows[num_yielded:]
            num_yielded = max(num_yielded, len(rows))
        if checkpoint:
            return
        if has_worked:
            pause_s = _FIRST_PAUSE_S
        else:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class _PrefixBuilder:
    """One trial's part in the training of a prefix: an epoch per turn, unless another trial has resumed it.

    ``rows`` are the prefix's, as far as this trial has trained or read them.
    """

    def __init__(self, prefix: Prefix, dataset: Dataset, setting: TrialSetting, store: Store) -> None:
        self.prefix, self.store = prefix, store
        self.determined_by = prefix.determined_by(dataset, setting)
        self.rows: list[EpochRow] = []
        self._dataset, self._setting = dataset, setting
        self._training: Iterator[EpochRow] | None = None
        self._newest: int | None = None  # epoch of the scratch directory when other builders were last looked for
        self._alive_at = -math.inf  # when another builder was last seen at work

    def advance(self, artifact: Artifact | None) -> bool:
        """Load what there is, or train an epoch, if it is this trial's turn; publish the prefix once it is whole."""
        if artifact is None or artifact.path:
            self._alive_at = time.monotonic()
            return False
        newest = checkpoints_of(artifact.scratch).newest()
        if self._training and newest == len(self.rows):
            self.rows.append(next(self._training))
        elif self._is_abandoned(newest):
            self._load(artifact.scratch, newest)
        else:
            self._training = None
            return False
        if len(self.rows) == self.prefix.epochs:
            artifact.publish(lambda target: copy_newest(artifact.scratch, target))
        return True

    def _is_abandoned(self, newest: int) -> bool:
        """Return whether no builder has been at work for too long; called when the lock was free."""
        now = time.monotonic()
        if self._newest not in (None, newest):
            self._alive_at = now
        self._newest = newest
        return now - self._alive_at >= _BUILDER_TIMEOUT_S

    def _load(self, scratch: Path, newest: int) -> None:
        if shorter := self._find_shorter(newest):
            copy_newest(shorter, scratch)
        inner = replace(self._setting, directory=scratch, stream=None, stop_after=self.prefix.epochs)
        self.rows, self._training = resume_training(self.prefix.spec, self._dataset, inner)

    def _find_shorter(self, newest: int) -> Path | None:
        """Return the longest finished prefix of more than ``newest`` epochs that this one begins with, if any."""
        for epochs in range(self.prefix.epochs - 1, newest, -1):
            shorter = shared_prefix(self.prefix.spec.model_copy(update={"switch_epoch": epochs}))
            assert shorter is not None, "it has at least an epoch"
            if found := self.store.find(PREFIX, shorter.determined_by(self._dataset, self._setting)):
                return found
        return None
