"""The runs of one study in an MLflow store: finds each by its tags or creates it, and writes what it lacks.

    upsert(key, desired)  find or create --> steps, params, tags --> files --> status --> model
    append(key, steps)    only steps, to a run that was upserted

The status is written last: a run with its final status is complete, except for files that could not be written; a tag
has the digest of the written files. If several runs have one key (two drivers raced, or a server's answer was
lost), the oldest is kept and the others are deleted.
"""

import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.content import (
    OUTCOME_TAGS,
    STUDY_RUN,
    DesiredRun,
    RunKey,
    Status,
    StepMetrics,
)
from gitdist.study.monitoring.mlflow.database import local_path
from gitdist.study.monitoring.mlflow.description import HASH, StudyDescription
from gitdist.study.monitoring.mlflow.models import is_logged, log_model, register_model
from gitdist.study.monitoring.mlflow.runs_table import table_page
from gitdist.study.monitoring.mlflow.store import open_experiment

_LAST_STEP = "gitdist.last_step"  # if it equals the last step in the files, the run's curves are not read
_MODEL, _REGISTERED = f"{HASH}model", "gitdist.registered"  # id of the logged model, and its registered name
_FILES = f"{HASH}files"  # digest of the files that were written last
_STUDY, _IDENTITY = "gitdist.study", f"{HASH}identity"
_FORMER_IDENTITY = "gitdist.identity"  # up to gitdist 0.5, as the next
_FORMER_NAMES = {_FILES: "gitdist.files", _MODEL: "gitdist.model"}
_NOTE = "mlflow.note.content"
_BATCH_SIZE = 800  # metrics; MLflow accepts at most 1000 metrics, params and tags at once
_NUM_PARAMS, _PARAM_LENGTH = 100, 6000  # the most params at once, and characters of each, that MLflow accepts
_PAGE_SIZE = 1000


@dataclass(frozen=True, kw_only=True)
class UpsertResult:
    """What a run lacked: the run itself, some of its steps, its true status."""

    created: bool
    num_steps: int
    status_changed: bool


@dataclass
class _KnownRun:
    """The known content of a run in the store: what this process has read or written."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    has_inputs: bool
    steps: set[int] | None = None  # None = not read yet


class OwnershipLostError(Exception):
    """Another driver owns the study and writes its runs."""


class StudyRuns:
    """The runs of a study; not thread-safe.

    The methods raise MLflow's errors; after an error, a run is read again before it is written.
    """

    def __init__(
        self,
        paths: StudyPaths,
        uri: str,
        identity: str,
        view: str | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Open the experiment of the study with ``identity``.

        Args:
            paths: the study's files.
            uri: of the store.
            identity: of the study.
            view: the view of the runs table, see ``runs_table``; None = the experiment keeps its own.
            stop: once it is set, the store is no longer called.
        """
        self._store, experiment = open_experiment(paths, uri, identity, view)
        self.experiment_id, self._stop = str(experiment.experiment_id), stop
        self._artifact_root = local_path(experiment.artifact_location)
        self._study_tags = {_STUDY: paths.name, _IDENTITY: identity}
        self._known: dict[RunKey, _KnownRun] = {}

    @property
    def _client(self) -> MlflowClient:
        if self._stop is not None and self._stop.is_set():
            raise OwnershipLostError
        return self._store

    def load(self) -> None:
        """Read all runs of the study at once, and delete duplicates."""
        self._known = {}
        self._read_runs({})

    def check_store(self) -> None:
        """Raise the store's error if it does not answer."""
        self._client.get_experiment(self.experiment_id)

    def parent_id(self) -> str:
        """Return the id of the parent run, which is created if it is missing."""
        run = self._find(STUDY_RUN) or self._create(STUDY_RUN, self._study_tags[_STUDY], {}, None)
        return run.run_id

    def known_id(self, key: RunKey) -> str | None:
        """Return the id of a run that was read or written; any thread may call this."""
        run = self._known.get(key)
        return None if run is None else run.run_id

    def upsert(
        self, key: RunKey, desired: DesiredRun, description: StudyDescription, *, thorough: bool = False
    ) -> UpsertResult:
        """Write what a run lacks of its desired content, and of what all runs say of the study.

        Unless ``thorough``, curves and files are not read if the run's own tags say that they are complete.
        """
        try:
            return self._upsert(key, desired, description, thorough)
        except Exception:
            self._known.pop(key, None)  # it is unknown how much was written
            raise

    def append(self, key: RunKey, steps: Sequence[StepMetrics]) -> bool:
        """Write the steps that a run lacks; return False if the run is unknown and must be upserted."""
        run = self._known.get(key)
        if run is None:
            return False
        try:
            written = self._read_steps(run, steps) if run.steps is None else run.steps
            self._write_steps(run, [step for step in steps if step.step not in written])
        except Exception:
            del self._known[key]  # it is unknown how much was written
            raise
        return True

    def end_orphans(self, known: Iterable[RunKey]) -> int:
        """End each loaded run that is RUNNING and not ``known``; return how many."""
        orphans = [key for key in self._known.keys() - set(known) if self._known[key].status == "RUNNING"]
        for key in orphans:
            self._set_status(self._known[key], "KILLED")
        return len(orphans)

    def log_files(self, key: RunKey, directories: Mapping[Path, str]) -> bool:
        """Add files to a run, each in its artifact directory; return False if the run does not exist."""
        run = self._find(key)
        if run is None:
            return False
        self._check_artifact_root(run)
        for file, directory in directories.items():
            self._client.log_artifact(run.run_id, str(file), directory)
        return True

    def _upsert(self, key: RunKey, desired: DesiredRun, description: StudyDescription, thorough: bool) -> UpsertResult:
        steps, final, run_tags = desired.steps(), desired.final(), desired.tags()
        params = description.params(key.role, desired.params)
        parent = {} if key == STUDY_RUN else {"mlflow.parentRunId": self.parent_id()}
        run = self._find(key)
        created = run is None
        if run is None:
            run = self._create(key, desired.name, parent, desired.span().started_at)
        missing: list[StepMetrics] = []
        if steps and (thorough or run.steps is not None or run.tags.get(_LAST_STEP) != str(steps[-1].step)):
            written = self._read_steps(run, steps) if run.steps is None else run.steps
            missing = [step for step in steps if step.step not in written]
            self._write_steps(run, missing)
        note = {_NOTE: f"{desired.note(description.spec)}\n\n{self._format_links(run, bool(parent))}"}
        tags = {**run_tags, **parent, **note, **description.source_tags}
        if desired.status != "RUNNING":  # so that MLflow's UI, which shows the oldest tag first, shows them last
            tags |= description.hashes
        self._write_values(run, final, params, {**tags, **self._study_tags})
        if not run.has_inputs:
            self._client.log_inputs(run.run_id, description.inputs())
            run.has_inputs = True
        for tag in OUTCOME_TAGS:
            if tag in run.tags and tag not in run_tags:
                self._client.delete_tag(run.run_id, tag)
                del run.tags[tag]
        status_changed = run.status != desired.status
        try:
            if desired.status in ("FINISHED", "FAILED"):
                self._write_files(run, desired.files(), thorough)
        finally:  # the status is true even if the files cannot be written
            if status_changed:
                self._set_status(run, desired.status, desired.span().ended_at)
        self._write_model(run, desired, thorough)
        return UpsertResult(created=created, num_steps=len(missing), status_changed=status_changed and not created)

    def _format_links(self, run: _KnownRun, is_child: bool) -> str:
        """Return links to the parent run and the artifacts, which work in MLflow's UI."""
        runs = f"#/experiments/{self.experiment_id}/runs"
        table = table_page(self.experiment_id, self._study_tags[_IDENTITY])
        links = [f"[Artifacts]({runs}/{run.run_id}/artifacts)", f"[Table of all runs]({table})"]
        if is_child:
            links.insert(0, f"[Study]({runs}/{self.parent_id()})")
        return " · ".join(links)

    def _find(self, key: RunKey) -> _KnownRun | None:
        if key not in self._known:
            self._read_runs(key.tags)
        return self._known.get(key)

    def _create(self, key: RunKey, name: str, parent: Mapping[str, str], started_at: float | None) -> _KnownRun:
        tags = {**key.tags, **parent, **self._study_tags}
        start_ms = None if started_at is None else int(1000 * started_at)
        run = self._client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=name)
        try:
            self._read_runs(key.tags)  # a second driver, or a request sent twice, may have created another run
        except OwnershipLostError:  # meanwhile the new owner has created its own run, and would not find this one
            self._store.delete_run(run.info.run_id)
            raise
        return self._known[key]

    def _read_runs(self, tags: Mapping[str, str]) -> None:
        """Add the study's runs with ``tags`` to the known ones, the oldest of each key, and delete the others."""
        for run in sorted(self._search(tags), key=lambda run: (run.info.start_time, run.info.run_id)):
            key, data = RunKey.of_tags(run.data.tags), run.data
            former = {name: data.tags[old] for name, old in _FORMER_NAMES.items() if old in data.tags}
            known = _KnownRun(
                run.info.run_id,
                run.info.status,
                {**former, **data.tags},
                dict(data.params),
                dict(data.metrics),
                has_inputs=run.inputs is not None and bool(run.inputs.dataset_inputs),
            )
            if self._known.setdefault(key, known).run_id != known.run_id:
                self._client.delete_run(known.run_id)

    def _search(self, tags: Mapping[str, str]) -> Iterator[Run]:
        wanted = {_STUDY: self._study_tags[_STUDY], **tags}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [self.experiment_id], filter_string=query, max_results=_PAGE_SIZE, page_token=token
            )
            for run in page:
                identity = run.data.tags.get(_IDENTITY, run.data.tags.get(_FORMER_IDENTITY))
                if identity == self._study_tags[_IDENTITY]:
                    yield run
            token = page.token or ""

    def _read_steps(self, run: _KnownRun, steps: Sequence[StepMetrics]) -> set[int]:
        """Return the steps that a run has, read from metrics that cover all of ``steps``."""
        names: list[str] = []
        for step in steps:
            if step.values and not any(name in step.values for name in names):
                names.append(min(step.values))
        histories = [self._client.get_metric_history(run.run_id, name) for name in names]
        run.steps = {metric.step for history in histories for metric in history}
        return run.steps

    def _write_steps(self, run: _KnownRun, steps: Sequence[StepMetrics]) -> None:
        """Write steps in batches; each step is in one batch, so it is written completely or not at all."""
        batch: list[Metric] = []
        for step in steps:
            if batch and len(batch) + len(step.values) > _BATCH_SIZE:
                self._client.log_batch(run.run_id, metrics=batch)
                batch = []
            batch += [Metric(name, value, step.time_ms, step.step) for name, value in step.values.items()]
        if batch:
            self._client.log_batch(run.run_id, metrics=batch)
        run.steps = (run.steps or set()) | {step.step for step in steps}

    def _write_values(
        self, run: _KnownRun, final: StepMetrics | None, params: Mapping[str, object], tags: Mapping[str, str]
    ) -> None:
        if run.steps:
            tags = {**tags, _LAST_STEP: str(max(run.steps))}
        new_tags = {name: value for name, value in sorted(tags.items()) if run.tags.get(name) != value}
        new_params = {name: str(value)[:_PARAM_LENGTH] for name, value in params.items() if name not in run.params}
        metrics = []
        if final is not None:
            changed = {name: value for name, value in final.values.items() if run.metrics.get(name) != value}
            metrics = [Metric(name, value, final.time_ms, final.step) for name, value in changed.items()]
            run.metrics |= changed
        written = [Param(*item) for item in new_params.items()]
        if metrics or written or new_tags:
            self._client.log_batch(
                run.run_id, metrics, written[:_NUM_PARAMS], [RunTag(*item) for item in new_tags.items()]
            )
        for start in range(_NUM_PARAMS, len(written), _NUM_PARAMS):
            self._client.log_batch(run.run_id, params=written[start : start + _NUM_PARAMS])
        run.tags |= new_tags
        run.params |= new_params

    def _write_files(self, run: _KnownRun, files: Mapping[str, bytes], thorough: bool) -> None:
        whole = b"".join(f"{name} {len(content)}\n".encode() + content for name, content in sorted(files.items()))
        digest = hashlib.sha256(whole).hexdigest()
        if not files or (run.tags.get(_FILES) == digest and not (thorough and self._lacks(run, files))):
            return
        self._check_artifact_root(run)
        with tempfile.TemporaryDirectory(prefix="gitdist-mlflow-") as directory:
            for name, content in files.items():
                (Path(directory) / name).write_bytes(content)
            self._client.log_artifacts(run.run_id, directory)
        self._client.set_tag(run.run_id, _FILES, digest)
        run.tags[_FILES] = digest

    def _write_model(self, run: _KnownRun, desired: DesiredRun, thorough: bool) -> None:
        directory = desired.model()
        if directory is None:
            return
        model_id = run.tags.get(_MODEL)
        if model_id is None or (thorough and not is_logged(self._client, model_id)):
            self._check_artifact_root(run)
            model_id = log_model(self._client, run.run_id, directory, self._study_tags)
            self._client.set_tag(run.run_id, _MODEL, model_id)
            run.tags[_MODEL] = model_id
        name = desired.registered_as
        if name is not None and run.tags.get(_REGISTERED) != name:
            register_model(self._client, name, run.run_id, model_id)
            self._client.set_tag(run.run_id, _REGISTERED, name)
            run.tags[_REGISTERED] = name

    def _lacks(self, run: _KnownRun, files: Mapping[str, bytes]) -> bool:
        sizes = {file.path: file.file_size for file in self._client.list_artifacts(run.run_id)}
        return any(sizes.get(name) != len(content) for name, content in files.items())

    def _check_artifact_root(self, run: _KnownRun) -> None:
        """Raise MlflowException if a run's artifact location has changed since the experiment was opened.

        A driver that uses the same results directory under another path has changed the locations; opening the
        experiment again changes them back.
        """
        location = local_path(self._client.get_run(run.run_id).info.artifact_uri)
        root = self._artifact_root
        if root is not None and location is not None and not location.is_relative_to(root):
            raise MlflowException(f"another process has moved the MLflow artifacts from {root} to {location}")

    def _set_status(self, run: _KnownRun, status: Status, ended_at: float | None = None) -> None:
        if status == "RUNNING":
            self._client.update_run(run.run_id, status=status)
        else:
            self._client.set_terminated(run.run_id, status, end_time=None if ended_at is None else int(1000 * ended_at))
        run.status = status
