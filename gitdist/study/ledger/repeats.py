"""Finds trials with the same training as an earlier trial, and trials whose K or p augments no class.

If training is deterministic (on a CPU), a new trial repeats a finished trial with the same training: it reuses the
result. On a GPU, or while the other trial is running, the new trial replicates it: it is trained too.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gitdist.errors import TrialFailedError
from gitdist.spec import StudySpec, TrialSpec
from gitdist.study.files.json_files import Description, read_json
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.ledger.records import TrialRecord, list_trials
from gitdist.trial.mixing import augmented_classes


class Repeats:
    """Finds the trial that a new one repeats or replicates; ``link`` is an argument of ``Ledger.next_trial``."""

    def __init__(self, spec: StudySpec, class_sizes: NDArray[np.int64]) -> None:
        """Compare the trials of a study whose data set has ``class_sizes`` training images, int64 ``[C]``."""
        self._spec, self._sizes = spec, class_sizes
        self._deterministic = spec.resources.trial.device == "cpu"
        self._keys: dict[str, str | None] = {}

    def link(self, params: Mapping[str, Any], records: Sequence[TrialRecord]) -> dict[str, int]:
        """Return ``repeat_of`` or ``replicate_of`` of a new trial with ``params``, or {}."""
        key = self._key(params)
        same = [record for record in records if record.state in ("finished", "running")]
        same = [record for record in same if key is not None and self._key(record.params) == key]
        finished = [record for record in same if record.state == "finished"]
        if finished and self._deterministic:
            original = finished[0]
            return {"repeat_of": original.number if original.repeat_of is None else original.repeat_of}
        return {"replicate_of": same[0].number} if same else {}

    def _key(self, params: Mapping[str, Any]) -> str | None:
        """Return a key that parameters with the same training share; None if the parameters break a rule."""
        from gitdist.trial.canonical import training_key  # imports torch

        point = json.dumps(dict(params), sort_keys=True)
        if point not in self._keys:
            try:
                self._keys[point] = training_key(self._spec.trial_of(params), self._sizes)
            except TrialFailedError:
                self._keys[point] = None
        return self._keys[point]


def describe_links(records: Sequence[TrialRecord]) -> list[str]:
    """Return a line about the trials that reuse results and a line about those that were trained again, if any."""
    repeats = [f"{record.number} (of {record.repeat_of})" for record in records if record.repeat_of is not None]
    others = [f"{record.number} (of {record.replicate_of})" for record in records if record.replicate_of is not None]
    lines = [f"result of an earlier trial with the same training reused: {list_trials(repeats)}"] if repeats else []
    return lines + ([f"same training as another trial, trained again: {list_trials(others)}"] if others else [])


def unaugmented_trials(paths: StudyPaths, records: Sequence[TrialRecord]) -> dict[int, int]:
    """Return the trials with p > 0 that augment no class: the size of the smallest class by trial number.

    Trials whose trial.json is missing or damaged are left out.
    """
    smallest_sizes = {}
    for record in records:
        description = read_json(paths.description(TrialId("trial", record.number)), Description) or {}
        if "spec" in description and "classes" in description:
            spec, sizes = _trial_spec(description["spec"]), np.asarray(description["classes"]["sizes"])
            if spec is not None and spec.fraction > 0 and not augmented_classes(spec, sizes).any():
                smallest_sizes[record.number] = int(sizes.min())
    return smallest_sizes


def describe_unaugmented(smallest_sizes: Mapping[int, int]) -> list[str]:
    """Return a line about the trials of ``unaugmented_trials``, if any."""
    if not smallest_sizes:
        return []
    return [
        f"no class augmented, as with fraction 0: {list_trials(list(smallest_sizes))}; no class "
        f"is smaller than K (the smallest has {min(smallest_sizes.values())} images), or fraction * batch_size < 1"
    ]


def _trial_spec(values: Mapping[str, Any]) -> TrialSpec | None:
    """Return the spec in a trial.json; None if it breaks a rule."""
    try:
        return TrialSpec.model_validate(values)
    except ValidationError:
        return None
