"""A trial in two stages: the prefix, which other trials train in just the same way, and the rest, which is its own.

    epochs 1 .. n   the prefix: instance sampling, no augmentation   -> a store artefact, trained at most once
    epochs n+1 ..   whatever the trial's sampler, K and p make of it -> the trial's directory

    claim the prefix --found---> copy its checkpoint -----------------------------------------> train the rest
                     --free----> train an epoch in the artefact's scratch, after the last one put
                                 release the claim --> yield the row -------------------------> claim again
                     --another trial's--> yield no row, pause --------------------------------> claim again

The trial that comes first trains the prefix in its own place, so nobody waits for a task that no place is left for.
Nobody holds the claim while rows are yielded, for the reader may be stopped for good. A builder goes on with the
training that it has in memory if the scratch's newest checkpoint is still its own. Where a builder is killed or does
not come back for a while, another one goes on from that checkpoint. The rows of the prefix are every trial's rows;
``trained_by`` in a row says whose work it was. Prefixes of different lengths are different artefacts: a longer one goes
on from a shorter one that is finished, but not from one that is being trained.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gitdist.data.dataset import Dataset
from gitdist.spec import TrialSpec
from gitdist.store import Claim, Store
from gitdist.trial.canonical import unread_fields
from gitdist.trial.checkpoint import checkpoints_of, copy_newest, load_checkpoint
from gitdist.trial.plan import draws_needed
from gitdist.trial.training import EpochRow, TrialSetting, resume

KIND = "prefix"
_FORMAT = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0  # between two looks at a prefix that another trial trains
_PATIENCE_S = 5.0  # with a builder that trains no epoch: its driver may be busy


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
    """Return what a trial trains before its sampler, K, p and deferred weights matter; None where that is no epoch.

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
    """Train as ``resume`` does, the prefix out of the store or into it; the numbers are the same, bit for bit.

    Yields first the rows of all epochs that are completed already (there may be none), then those of each epoch once
    its checkpoint is in place, and every few seconds none while another trial trains the prefix. A trial that has begun
    the prefix alone goes on alone.

    Args:
        spec: the trial.
        dataset: as for ``train``.
        setting: as for ``train``; its directory is needed.
        store: where prefixes are kept; None = the trial trains all of its epochs itself.
        on_prefix: told key and epochs of the prefix just before the trial takes it.

    Raises:
        StoreError: the store cannot be read or written.
        Exception: as ``train``.
    """
    assert setting.directory is not None, "a trial in stages has a directory"
    prefix = shared_prefix(spec) if store and load_checkpoint(setting.directory) is None else None
    if store and prefix:
        if setting.stream is not None:  # its blocks are made while the prefix is trained, or waited for
            setting.stream.plan(draws_needed(spec, dataset.train.labels, dataset.class_sizes))
        yield from _take_prefix(prefix, dataset, setting, store, on_prefix)
    completed, training = resume(spec, dataset, setting, announce=prefix is None)
    if prefix is None:
        yield completed
    for row in training:
        yield [row]


def _take_prefix(
    prefix: Prefix, dataset: Dataset, setting: TrialSetting, store: Store, on_prefix: Callable[[str, int], None]
) -> Generator[list[EpochRow], None, None]:
    """Leave the prefix's checkpoint in the setting's directory; yield rows as ``train_in_stages`` does."""
    assert setting.directory is not None
    determined_by = prefix.determined_by(dataset, setting)
    builder, num_told, pause_s = _Builder(prefix, dataset, setting, store), 0, _FIRST_PAUSE_S
    while True:
        if setting.check:
            setting.check()
        with store.claim_if_free(KIND, determined_by) as claim:
            has_worked = builder.go_on(claim)
            found = claim.found if claim else None
        if found:
            on_prefix(found.name, prefix.epochs)
        if found:
            copy_newest(found, setting.directory)
        checkpoint = load_checkpoint(setting.directory) if found else None  # None where it was removed just now
        # A builder's first miss is no wait: another trial looks whether the builder is still there.
        if has_worked or checkpoint or pause_s > _FIRST_PAUSE_S:
            rows = checkpoint.rows if checkpoint else builder.rows
            yield rows[num_told:]
            num_told = max(num_told, len(rows))
        if checkpoint:
            return
        if has_worked:
            pause_s = _FIRST_PAUSE_S
        else:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class _Builder:
    """One trial's part in the training of a prefix: an epoch a turn, unless another trial has gone on with it.

    ``rows`` are the prefix's, as far as this trial has trained or read them.
    """

    def __init__(self, prefix: Prefix, dataset: Dataset, setting: TrialSetting, store: Store) -> None:
        self.rows: list[EpochRow] = []
        self._prefix, self._dataset, self._setting, self._store = prefix, dataset, setting, store
        self._training: Iterator[EpochRow] | None = None
        self._newest: int | None = None  # epoch in the scratch, when others were last looked at
        self._alive_at = -math.inf  # when others were last seen at work

    def go_on(self, claim: Claim | None) -> bool:
        """Load what there is, or train an epoch, if it is this trial's turn; put the prefix if it is whole then."""
        if claim is None or claim.found:
            self._alive_at = time.monotonic()
            return False
        newest = checkpoints_of(claim.scratch).newest()
        if self._training and newest == len(self.rows):
            self.rows.append(next(self._training))
        elif self._is_abandoned(newest):
            self._load(claim.scratch, newest)
        else:
            self._training = None
            return False
        if len(self.rows) == self._prefix.epochs:
            claim.put(lambda target: copy_newest(claim.scratch, target))
        return True

    def _is_abandoned(self, newest: int) -> bool:
        """Tell, at a look that finds the claim free, whether a builder has been away for too long, or there is none."""
        now = time.monotonic()
        if self._newest not in (None, newest):
            self._alive_at = now
        self._newest = newest
        return now - self._alive_at >= _PATIENCE_S

    def _load(self, scratch: Path, newest: int) -> None:
        if shorter := _find_shorter(self._prefix, newest, self._dataset, self._setting, self._store):
            copy_newest(shorter, scratch)
        inner = replace(self._setting, directory=scratch, stream=None, stop_after=self._prefix.epochs)
        self.rows, self._training = resume(self._prefix.spec, self._dataset, inner)


def _find_shorter(prefix: Prefix, newest: int, dataset: Dataset, setting: TrialSetting, store: Store) -> Path | None:
    """Return the longest prefix in the store that this one begins with, of trials that switch earlier, if any.

    It must be longer than the ``newest`` epochs that are there already.
    """
    for epochs in range(prefix.epochs - 1, newest, -1):
        shorter = shared_prefix(prefix.spec.model_copy(update={"switch_epoch": epochs}))
        assert shorter is not None, "it has at least an epoch"
        if found := store.find(KIND, shorter.determined_by(dataset, setting)):
            return found
    return None
