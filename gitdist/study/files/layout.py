"""Paths of a study's files in the results directory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gitdist.address import join_uri
from gitdist.disk import (
    check_readable,
    check_results_directory,
    disk_errors,
    real_path,
    results_directory_error,
    write_refusal,
)
from gitdist.input_file import expand_home
from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.files.results import LocalResults, Results

Role = Literal["trial", "baseline"]


@dataclass(frozen=True)
class TrialId:
    """A classifier training of a study: a search trial with its Optuna number, or the baseline."""

    role: Role
    number: int | None = None

    def __str__(self) -> str:
        return "baseline" if self.number is None else str(self.number)


BASELINE = TrialId("baseline")

_TRIAL_FILES = (".json", ".jsonl", ".pt", ".png", ".parquet", "attempt")  # ends of names in a trial's directory


@dataclass(frozen=True)
class StudyPaths:
    """The files of study ``name`` in ``results`` (other programs may rely on this layout)."""

    results: Results
    name: str

    @classmethod
    def at(cls, results: Path | Results, name: str) -> "StudyPaths":
        """Return the files of a study in a results directory or on an object store."""
        return cls(results if isinstance(results, Results) else LocalResults(results), name)

    def pull(self, trial: TrialId | None = None) -> None:
        """Update the copy of the study or of one trial, without checkpoints, if the results are on an object store."""
        self.results.pull(self.study if trial is None else self.trial(trial))

    def push(self, *files: Path) -> None:
        """Write ``files`` to the object store if the results are there."""
        self.results.push(*files)

    @property
    def root(self) -> Path:
        """The results directory, or this process's copy of it."""
        return self.results.directory

    @property
    def tracking_db(self) -> Path:
        """The default MLflow store."""
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The root of MLflow's artifact locations, if its store is a database.

        A symbolic link with this name is not followed, so copied results write their own artifacts.
        """
        return real_path(self.root) / "mlartifacts"

    @property
    def study(self) -> Path:
        """The study's own directory."""
        return self.root / self.name

    @property
    def spec(self) -> Path:
        """The resolved study file."""
        return self.study / "study.yaml"

    @property
    def identity(self) -> Path:
        """The unique ID of the study, see ``ensure_identity``."""
        return self.study / "identity"

    @property
    def ledger(self) -> Path:
        """The Optuna storage if it is SQLite."""
        return self.study / "ledger.db"

    @property
    def journal(self) -> Path:
        """The Optuna storage if it is a journal."""
        return self.study / "ledger.journal"

    @property
    def summary(self) -> Path:
        """Times, counts, best trial and baseline of a finished study."""
        return self.study / "summary.json"

    @property
    def usage(self) -> Path:
        """Times and counts of each driver that ran the study, one JSON file per driver."""
        return self.study / "drivers"

    @property
    def monitor_log(self) -> Path:
        """Statistics of the stream and of the driver's machine over time."""
        return self.study / "watch.jsonl"

    @property
    def library_log(self) -> Path:
        """Warnings and errors of Ray and other libraries in the driver; missing if there were none."""
        return self.study / "libraries.log"

    @property
    def times(self) -> Path:
        """When the study, its generator and its trials started and ended, one line per event."""
        return self.study / "times.jsonl"

    @property
    def samples(self) -> Path:
        """A picture of the generator's draws."""
        return self.study / "samples.png"

    @property
    def campaign(self) -> Path:
        """The campaign, if the name is that of one."""
        return self.study / "campaign.yaml"

    @property
    def confirmations(self) -> Path:
        """What confirmations of the study's trials have found, one JSON file per confirmation."""
        return self.study / "confirmations"

    @property
    def trials(self) -> Path:
        """The directories of the search trials."""
        return self.study / "trials"

    @property
    def lock(self) -> Path:
        """Locked while a process of this host opens the Optuna storage, so that only one creates it."""
        return self.study / "driver.lock"

    def trial(self, trial: TrialId) -> Path:
        """The directory of one trial: rows.jsonl, checkpoints, test.json."""
        if trial.number is None:
            return self.study / "baseline"
        return self.trials / f"{trial.number:04d}"

    def model(self, trial: TrialId) -> Path:
        """The MLflow model of one trial, if it is one of the best or the baseline."""
        return self.study / "models" / self.trial(trial).name

    def rows(self, trial: TrialId) -> Path:
        """The rows file of one trial."""
        return self.trial(trial) / "rows.jsonl"

    def test(self, trial: TrialId) -> Path:
        """The test metrics of one trial, if it was evaluated on test."""
        return self.trial(trial) / "test.json"

    def description(self, trial: TrialId) -> Path:
        """The spec of one trial, what it reuses, and the classes of its data set."""
        return self.trial(trial) / "trial.json"

    def stored_trials(self) -> list[TrialId]:
        """Return the search trials that have a directory, by number."""
        names = os.listdir(self.trials) if self.trials.is_dir() else []
        return [TrialId("trial", number) for number in sorted(int(name) for name in names if name.isdecimal())]

    def check_readable(self) -> None:
        """Check that the study's files are files and its directories are directories, all readable; change nothing.

        Raises:
            StoreError: one is something else, such as a link that leads nowhere, or reading it is not allowed.
        """
        check_results_directory(self.root)
        for directory in (self.study, self.trials, self.usage):
            check_readable(directory, is_directory=True)
        for trial in (BASELINE, *self.stored_trials()):
            check_readable(self.trial(trial), is_directory=True)
        for file in self._files():
            check_readable(file)

    def _files(self) -> Iterator[Path]:
        yield from (self.spec, self.campaign, self.identity, self.ledger, self.journal, self.lock)
        yield from (self.summary, self.monitor_log, self.times, self.samples)
        yield from self.usage.glob("*.json")
        for trial in (BASELINE, *self.stored_trials()):
            yield from (file for file in self.trial(trial).glob("*") if file.name.endswith(_TRIAL_FILES))

    def check_writable(self) -> None:
        """Check that the existing directories of the study can be written; create nothing."""
        for directory in (self.root, self.study):
            refusal = write_refusal(directory) if directory.is_dir() else None
            if refusal is not None:
                raise results_directory_error(directory, refusal)

    def create(self) -> None:
        """Create the study's directory."""
        try:
            with disk_errors(self.study):
                self.study.mkdir(parents=True, exist_ok=True)
                self.lock.touch()
        except OSError as error:
            raise results_directory_error(error.filename, error.strerror) from None


def open_store(paths: StudyPaths, spec: StudySpec) -> Store:
    """Return the store of a study's artifacts, with the size limit and the shared store of its spec."""
    max_gb, shared, uri = spec.store.max_gb, shared_store(spec), paths.results.uri
    if shared is None and uri is not None:
        shared = join_uri(uri, "store")
    max_bytes = None if max_gb is None else int(max_gb * 1e9)
    return Store(paths.results.store, max_bytes=max_bytes, shared=shared, results=uri)


def shared_store(spec: StudySpec) -> str | None:
    """Return the URI or the absolute path of the shared store; None if the study has none."""
    uri = spec.store.uri
    if uri is not None and "://" not in uri:  # workers have other working directories
        return str(expand_home(uri).absolute())
    return uri
