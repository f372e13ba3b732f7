"""The pretrained weights of a study's trials, in the store.

Each file is copied into the store, where every node finds it. Its content is part of the names of shared prefixes.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from gitdist.disk import write_atomic
from gitdist.errors import TrialFailedError
from gitdist.input_file import read_input
from gitdist.networks import download_weights, network_version
from gitdist.networks.pretrained import WeightsFile, write_weights
from gitdist.spec import StudySpec, TrialSpec
from gitdist.spec.dimension import dependency_order
from gitdist.spec.search import METHOD
from gitdist.store import Store, canonical_json
from gitdist.study.compatibility import StudyWeights
from gitdist.trial.checkpoint import weights_source

_WEIGHTS = "weights"  # kind of the store's artifacts, and their file
_FORMAT = 1
_OF_NETWORK = ("network", "network_options", "pretrained", "normalize", "batch_size")


def obtain_weights(trials: list[TrialSpec], store: Store) -> StudyWeights:
    """Return the pretrained weights of trials by ``weights_source``, in the store.

    Raises:
        SpecError: a file cannot be read, or published weights cannot be downloaded.
    """
    sources = {source: trial.pretrained is True for trial in trials if (source := weights_source(trial)) is not None}
    return {source: _obtain(source, is_published, store) for source, is_published in sources.items()}


def distinct_trials(spec: StudySpec) -> list[TrialSpec]:
    """Return trials of a study with all its networks and pretrained weights, one for each combination.

    Parameters that make no valid trial are left out: such a trial fails, but the study continues.
    """
    needed = {METHOD, *_OF_NETWORK} & spec.search.space.keys()
    for name in reversed(dependency_order(spec.search.space)):
        if name in needed:
            needed |= spec.search.space[name].when.keys()
    points: list[dict[str, Any]] = [{}]
    for name in dependency_order(spec.search.space):
        dimension = spec.search.space[name]
        if name in needed:
            points = [
                {**point, **value}
                for point in points
                for value in ([{name: value} for value in dimension.extremes] if dimension.applies(point) else [{}])
            ]
    trials = [spec.trial] if spec.baseline else []
    for point in points:
        with suppress(TrialFailedError):
            trials.append(spec.trial_of(point))
    return list({canonical_json(trial.model_dump(include=set(_OF_NETWORK))): trial for trial in trials}.values())


def _obtain(source: str, is_published: bool, store: Store) -> WeightsFile:
    if is_published:
        determined_by = {"format": _FORMAT, "published": source, "version": network_version(source)}
    else:
        determined_by = {"format": _FORMAT, "content": WeightsFile.open(Path(source)).digest}

    def build(target: Path, scratch: Path) -> None:
        if is_published:
            write_weights(target / _WEIGHTS, download_weights(source))
        else:
            write_atomic(target / _WEIGHTS, read_input(Path(source)))

    artifact = store.get_or_build(_WEIGHTS, determined_by, build)
    return WeightsFile.open(artifact / _WEIGHTS)
