"""What the driver sends to a worker: the context that all trials of a study share, and the job of one trial."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from gitdist.networks.pretrained import WeightsFile
from gitdist.spec import StudySpec, TrialSpec
from gitdist.store import Store
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import BlockSource, DrawStream, LocalBlocks
from gitdist.stream.server import ServerConfig
from gitdist.study.compatibility import StudyWeights
from gitdist.study.files.layout import StudyPaths, TrialId, open_store
from gitdist.study.files.results import Results
from gitdist.trial.checkpoint import weights_source


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a study share: the study, its driver's lease epoch, and its data, eKLD images and draws.

    Draws come from the stream of ``router``, or if trials share no stream, each trial generates them as ``generator``
    specifies. ``weights`` are the pretrained ones by ``weights_source``. All paths are of the driver's machine.
    """

    spec: StudySpec
    lease_epoch: int
    results: Results
    dataset: Path
    validation_ekld: Path
    router: str | None = None
    generator: ServerConfig | None = None
    weights: StudyWeights = field(default_factory=dict)

    @property
    def paths(self) -> StudyPaths:
        """The study's files."""
        return StudyPaths(self.results, self.spec.name)

    @cached_property
    def store(self) -> Store:
        """The study's store, as this process opens it."""
        return open_store(self.paths, self.spec)

    def resolve_locally(self, artifact: Path) -> Path:
        """Return the directory of an artifact on this machine; fetch it if the results are on an object store."""
        return artifact if self.results.uri is None else self.store.resolve_locally(artifact)

    def open_weights(self, trial: TrialSpec) -> WeightsFile | None:
        """Return the pretrained weights that a trial begins with; None if it begins without."""
        source = weights_source(trial)
        if source is None:
            return None
        file = self.weights[source]
        return replace(file, path=self.resolve_locally(file.path.parent) / file.path.name)

    def open_draws(self, trial: TrialSpec, num_classes: int) -> DrawStream:
        """Return a trial's draws, from the shared stream or from a generator in this process."""
        settings = self.spec.stream
        source: BlockSource
        if self.router is not None:
            autoscaling, generator = self.spec.resources.autoscaling, self.spec.generator.described
            source = BlockClient(self.router, autoscaling=autoscaling, generator=generator)
        else:
            assert self.generator is not None, "without a router each trial has a generator"
            source = LocalBlocks(self.generator.build_maker())
        replicate = trial.seed if settings.per_seed else 0
        return DrawStream(source, num_classes, settings.lookahead, replicate)


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """One trial to train.

    Attributes:
        trial: which trial.
        spec: its training: K, fraction, sampler and all other settings, validated.
        links: ``repeat_of`` or ``replicate_of`` with the number of an earlier trial that trains the same.
        reported_epoch: the last epoch in the ledger; completed rows are reported again from this epoch on.
    """

    trial: TrialId
    spec: TrialSpec
    links: Mapping[str, int] = field(default_factory=dict)
    reported_epoch: int = 0

    @classmethod
    def create(cls, study: StudySpec, trial: TrialId, params: Mapping[str, Any], **fields: Any) -> Self:
        """Return the job of a trial with searched parameters, or of the baseline, which has no augmentation."""
        is_baseline = trial.role == "baseline"
        spec = study.trial.model_copy(update={"fraction": 0.0}) if is_baseline else study.trial_of(params)
        return cls(trial=trial, spec=spec, **fields)
