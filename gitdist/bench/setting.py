"""What all benchmarks start from: a study with its data set prepared and, where asked for, its generator trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute, set_threads
from gitdist.errors import SpecError
from gitdist.generator.kinds import find_artifact, obtain_artifact
from gitdist.spec import MunitSpec, StudySpec
from gitdist.store import Store
from gitdist.stream.server import ServerConfig
from gitdist.study.files.layout import StudyPaths, open_store


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A study to measure.

    Attributes:
        spec: the study.
        results: the results directory; what is prepared lies in its store.
        store: the store.
        dataset: the study's data set.
        repeats: figures wanted of each side.
        trials: trials of a whole study, the most of several; None = the benchmark's own number.
        say: shows a line of progress.
    """

    spec: StudySpec
    results: Path
    store: Store
    dataset: Dataset
    repeats: int
    trials: int | None
    say: Callable[[str], None]

    @classmethod
    def prepare(
        cls, spec: StudySpec, results: Path, repeats: int, trials: int | None, say: Callable[[str], None]
    ) -> "Setting":
        """Prepare the study's data set; the arguments are the attributes.

        Raises:
            GitdistError: the data or the results directory cannot be used.
        """
        results = results.resolve()
        store = open_store(StudyPaths(results, spec.name), spec)
        dataset = prepare(spec.data, store)
        return cls(spec=spec, results=results, store=store, dataset=dataset, repeats=repeats, trials=trials, say=say)

    @property
    def munit(self) -> MunitSpec:
        """The generator's settings.

        Raises:
            SpecError: the study's generator is another kind.
        """
        if not isinstance(self.spec.generator, MunitSpec):
            raise SpecError(
                f"this benchmark measures generator.kind 'munit', but the study has '{self.spec.generator.kind}'; "
                "name another study with --study FILE"
            )
        return self.spec.generator

    @property
    def serving(self) -> Compute:
        """Device and precision of the study's generator servers."""
        return Compute.resolve(self.spec.stream.precision, self.spec.resources.server.device)

    @property
    def training(self) -> Compute:
        """Device and precision of the study's trials."""
        return Compute.resolve(self.spec.trial.precision, self.spec.resources.trial.device)

    @cached_property
    def artefact(self) -> Path:
        """The directory of the trained generator, trained here if it is not in the store."""
        share = self.spec.resources.training
        compute = Compute.resolve(device=share.device)
        found = find_artifact(self.munit, self.dataset, self.store, compute)
        if found is None:
            self.say(f"training the generator, {self.munit.steps} steps")
            set_threads(share.cpu)
            found = obtain_artifact(self.munit, self.dataset, self.store, lambda step: None, compute)
            assert found is not None
        return found

    @property
    def tail(self) -> list[int]:
        """The smaller half of the classes that have images: those that augmentation is for."""
        sizes = self.dataset.class_sizes
        filled = [index for index in np.argsort(sizes, kind="stable").tolist() if sizes[index]]
        return sorted(filled[: max(1, len(filled) // 2)])

    def server_config(self, **stream: object) -> ServerConfig:
        """Return what the study's servers start with, some fields of ``stream`` changed."""
        return ServerConfig(
            dataset=self.dataset.directory,
            generator=self.munit,
            artefact=self.artefact,
            stream=self.spec.stream.model_copy(update=stream),
            device=self.spec.resources.server.device,
        )
