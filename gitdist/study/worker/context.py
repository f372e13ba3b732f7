"""What all trials of a study share, as it travels from the driver to the workers."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gitdist.spec import Share, StudySpec
from gitdist.store import Store
from gitdist.stream.server import ServerConfig
from gitdist.study.files.layout import StudyPaths, TrialId, open_store
from gitdist.study.files.results import Mirror


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a study share: the study, its driver's term, and where its data, eKLD images and draws are.

    Draws come from ``router``, or are made by each trial as ``generator`` says where the stream is not shared. With
    results on an object store there is a ``mirror``, and the directories are those of the driver's machine, whose
    artefacts a worker on another one fetches.
    """

    spec: StudySpec
    term: int
    results: Path
    dataset: Path
    validation_ekld: Path
    router: str | None = None
    generator: ServerConfig | None = None
    mirror: Mirror | None = None

    @property
    def paths(self) -> StudyPaths:
        """The study's files."""
        results = self.results if self.mirror is None else self.mirror.directory
        return StudyPaths(results, self.spec.name, self.mirror)

    def here(self, artefact: Path) -> Path:
        """Return where this process finds one of the directories.

        Raises:
            StoreError: it must be fetched, and cannot be.
        """
        return artefact if self.mirror is None else self._store.resolve_locally(artefact)

    @cached_property
    def _store(self) -> Store:
        return open_store(self.paths, self.spec)

    @property
    def share(self) -> Share:
        """What each trial takes."""
        return self.spec.resources.trial

    def forget(self, trial: TrialId) -> None:
        """Remove the trial's files from this process's copy of the results, where it works on one."""
        if self.mirror is not None:
            self.mirror.forget(self.paths.trial(trial))
