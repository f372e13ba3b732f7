"""Points that were evaluated before: which earlier trial trains the same as a new one, and what is done about it.

Where training is deterministic (trials run on a processor) the new trial takes over the result of a finished one.
Elsewhere, or while the other one is still running, it is trained too and is a replicate of it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitdist.disk import read_object
from gitdist.errors import TrialFailedError
from gitdist.spec import StudySpec, TrialSpec
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.ledger.ledger import TrialRecord
from gitdist.study.ledger.space import trial_spec
from gitdist.trial.canonical import training_key
from gitdist.trial.mixing import augmented_classes


class Repeats:
    """Finds the trial that a new one repeats; its ``link`` is a ``Link`` of the ledger."""

    def __init__(self, spec: StudySpec, class_sizes: NDArray[np.int64]) -> None:
        """Compare trials of a study on a data set with ``class_sizes`` training images, int64 ``[C]``."""
        self._spec, self._sizes = spec, class_sizes
        self._deterministic = spec.resources.trial.device == "cpu"
        self._keys: dict[str, str | None] = {}

    def link(self, params: Mapping[str, Any], records: Sequence[TrialRecord]) -> dict[str, int]:
        """Return ``repeat_of`` or ``replicate_of`` with the number of an earlier trial, or nothing.

        Args:
            params: those of the new trial.
            records: all trials before it.
        """
        key = self._key(params)
        same = [record for record in records if record.state in ("finished", "running")]
        same = [record for record in same if key is not None and self._key(record.params) == key]
        finished = [record for record in same if record.state == "finished"]
        if finished and self._deterministic:
            original = finished[0]
            return {"repeat_of": original.number if original.repeat_of is None else original.repeat_of}
        return {"replicate_of": same[0].number} if same else {}

    def _key(self, params: Mapping[str, Any]) -> str | None:
        """Return what trains the same with equal keys; None for parameters that no trial can have."""
        name = json.dumps(dict(params), sort_keys=True)
        if name not in self._keys:
            try:
                self._keys[name] = training_key(trial_spec(self._spec, params), self._sizes)
            except TrialFailedError:
                self._keys[name] = None
        return self._keys[name]


def read_links(described: Mapping[str, Any]) -> dict[str, int]:
    """Return ``repeat_of`` or ``replicate_of`` of a trial out of its trial.json, if it has one of them."""
    return {name: described[name] for name in ("repeat_of", "replicate_of") if described.get(name) is not None}


def describe_links(records: Sequence[TrialRecord]) -> list[str]:
    """Return a line for the trials whose results were reused, and one for those that were trained again."""
    repeats = [f"{record.number} (of {record.repeat_of})" for record in records if record.repeat_of is not None]
    others = [f"{record.number} (of {record.replicate_of})" for record in records if record.replicate_of is not None]
    lines = [f"result of an earlier trial that trains the same, reused: {_named(repeats)}"] if repeats else []
    return lines + ([f"trained again, the same as another trial: {_named(others)}"] if others else [])


def unaugmented_trials(paths: StudyPaths, records: Sequence[TrialRecord]) -> dict[int, int]:
    """Return the trials that were asked to augment but augment no class, by number, with the smallest class's size.

    Args:
        paths: the study's files; a trial whose trial.json is missing is left out.
        records: the trials.
    """
    found = {}
    for record in records:
        described = read_object(paths.trial(TrialId("trial", record.number)) / "trial.json") or {}
        if "spec" in described and "classes" in described:
            spec, sizes = TrialSpec.model_validate(described["spec"]), np.asarray(described["classes"]["sizes"])
            if spec.fraction > 0 and not augmented_classes(spec, sizes).any():
                found[record.number] = int(sizes.min())
    return found


def describe_unaugmented(found: Mapping[int, int]) -> list[str]:
    """Return a line that names the trials of ``unaugmented_trials``."""
    if not found:
        return []
    smallest = min(found.values())
    return [
        f"no class augmented, the same as fraction 0: {_named([str(number) for number in found])}; no class is smaller "
        f"than K (the smallest has {smallest} images), or fraction * batch_size is below 1"
    ]


def _named(trials: Sequence[str]) -> str:
    return f"trial{'s' if len(trials) > 1 else ''} {', '.join(trials)}"
