"""Where a study's files lie in the results directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gitdist.address import join_uri
from gitdist.disk import disk_errors, write_refusal
from gitdist.errors import StoreError
from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.files.results import Mirror

Role = Literal["trial", "baseline"]


@dataclass(frozen=True)
class TrialId:
    """A classifier training of a study: a search trial with its Optuna number, or the baseline."""

    role: Role
    number: int | None = None

    def __str__(self) -> str:
        return "baseline" if self.number is None else str(self.number)


BASELINE = TrialId("baseline")


@dataclass(frozen=True)
class StudyPaths:
    """The files of study ``name`` under ``results`` (the layout that other programs may read).

    Where the results are on an object store, ``results`` is the copy of ``mirror``.
    """

    results: Path
    name: str
    mirror: Mirror | None = None

    @classmethod
    def at(cls, results: Path | Mirror, name: str) -> "StudyPaths":
        """Return the files of a study in a results directory or on an object store."""
        if isinstance(results, Mirror):
            return cls(results.directory, name, results)
        return cls(results.resolve(), name)

    @property
    def place(self) -> str:
        """What to give as ``--results``: the directory, or the URI."""
        return str(self.mirror or self.results)

    def refresh(self, trial: "TrialId | None" = None) -> None:
        """Where these are copies, bring those of the study or of one trial up to date, except for checkpoints.

        Raises:
            StoreError: the object store cannot be reached.
        """
        if self.mirror is not None:
            self.mirror.pull(self.study if trial is None else self.trial(trial))

    def publish(self, *files: Path) -> None:
        """Where these are copies, bring ``files`` to the object store; of the study's own files each when written.

        Raises:
            StoreError: the object store cannot be reached.
        """
        if self.mirror is not None:
            self.mirror.push(*files)

    @property
    def store(self) -> Path:
        """Artefacts by hash, shared by all studies."""
        return self.mirror.store if self.mirror else self.results / "store"

    @property
    def tracking_db(self) -> Path:
        """The default MLflow store."""
        return self.results / "mlflow.db"

    @property
    def artefacts(self) -> Path:
        """The root of MLflow's artifact locations, if the store is a database: always below this results directory.

        A symbolic link in its place is not followed, so a copy that has a directory instead writes there.
        """
        return self.results.resolve() / "mlartifacts"

    @property
    def study(self) -> Path:
        """The study's own directory."""
        return self.results / self.name

    @property
    def spec(self) -> Path:
        """The resolved study file."""
        return self.study / "study.yaml"

    @property
    def identity(self) -> Path:
        """The name that no other study has, see ``settle_identity``."""
        return self.study / "identity"

    @property
    def ledger(self) -> Path:
        """The Optuna storage, where it is SQLite."""
        return self.study / "ledger.db"

    @property
    def journal(self) -> Path:
        """The Optuna storage, where it is a journal."""
        return self.study / "ledger.journal"

    @property
    def summary(self) -> Path:
        """Times, counts, best and baseline of a finished study."""
        return self.study / "summary.json"

    @property
    def accounts(self) -> Path:
        """Times and counts of every driver that ran the study, a JSON file each."""
        return self.study / "drivers"

    @property
    def watch(self) -> Path:
        """Figures of the stream and of the driver's machine over time, a line every so often."""
        return self.study / "watch.jsonl"

    @property
    def times(self) -> Path:
        """When the study, its generator and its trials started and ended, a line per event."""
        return self.study / "times.jsonl"

    @property
    def samples(self) -> Path:
        """A picture of the generator's draws."""
        return self.study / "samples.png"

    @property
    def lock(self) -> Path:
        """Held while a process of this host opens the Optuna storage, so that two do not create it at once."""
        return self.study / "driver.lock"

    def trial(self, trial: TrialId) -> Path:
        """The directory of one trial: rows.jsonl, checkpoints, test.json."""
        if trial.number is None:
            return self.study / "baseline"
        return self.study / "trials" / f"{trial.number:04d}"

    def rows(self, trial: TrialId) -> Path:
        """The rows file of one trial."""
        return self.trial(trial) / "rows.jsonl"

    def test(self, trial: TrialId) -> Path:
        """The test metrics of one trial, once it was chosen."""
        return self.trial(trial) / "test.json"

    def check_writable(self) -> None:
        """Return if the study may be written, as far as its directories exist; nothing is created.

        Raises:
            StoreError: the results directory is read-only.
        """
        for directory in (self.results, self.study):
            refusal = write_refusal(directory) if directory.is_dir() else None
            if refusal is not None:
                raise _unwritable(directory, refusal)

    def create(self) -> None:
        """Make the study's directory.

        Raises:
            DiskError: the disk does not take it.
            StoreError: the results directory cannot be written.
        """
        try:
            with disk_errors(self.study):
                self.study.mkdir(parents=True, exist_ok=True)
                self.lock.touch()
        except OSError as error:
            raise _unwritable(error.filename, error.strerror) from None


def _unwritable(path: Path | str, reason: str | None) -> StoreError:
    message = f"the results directory must be writable, but {path} is not ({reason})"
    return StoreError(message, remedy="other_results")


def open_store(paths: StudyPaths, spec: StudySpec) -> Store:
    """Return the store of a study's artefacts, with the bound and the shared place that its spec names.

    Raises:
        StoreError: the results directory cannot be written, or the shared place cannot be reached.
    """
    bound, shared, uri = spec.store.max_gb, shared_place(spec), paths.mirror.uri if paths.mirror else None
    if shared is None and uri is not None:
        shared = join_uri(uri, "store")
    max_bytes = None if bound is None else int(bound * 1e9)
    return Store(paths.store, max_bytes=max_bytes, shared=shared, results=uri)


def shared_place(spec: StudySpec) -> str | None:
    """Return the URI or the absolute path of the store's shared place; None where a study has none."""
    uri = spec.store.uri
    if uri is not None and "://" not in uri:  # workers have working directories of their own
        return str(Path(uri).expanduser().absolute())
    return uri
