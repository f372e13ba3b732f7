"""The runs of one study in an MLflow store: each found by its tags before it is created, and given only what it lacks.

    bring(key, wanted):  find or create --> curves, params, tags --> files --> status

The status comes last: a run with its final status has all the rest, but for files that their place did not take; a tag
of the files that arrived tells. Of several runs for one key (two drivers raced, or a server's answer was lost) the
oldest is kept and the others are deleted.
"""

import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from gitdist.errors import StudyError
from gitdist.study.monitoring.mlflow.content import PASSING_TAGS, STUDY, DesiredRun, Point, RunKey, Status, to_ms
from gitdist.study.monitoring.mlflow.relocation import local_path

_LAST_STEP = "gitdist.last_step"  # spares a driver reading the curves of runs that are complete
_FILES = "gitdist.files"  # digest of the files that arrived last
_BATCH = 800  # metrics; MLflow takes 1000 metrics, params and tags together
_PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was missing: the run itself, some of its steps, its true status."""

    created: bool
    steps: int
    status: bool


@dataclass
class _Record:
    """What the store has of a run, as far as it was read or written here."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    figures: dict[str, float]
    steps: set[int] | None = None  # None = not read yet


class Revoked(Exception):
    """The runs are another driver's to write."""


class StudyRuns:
    """The runs of the study ``name`` with ``identity``; used by one thread at a time.

    The methods raise whatever MLflow raises; what they were about is then read again before it is written again.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment: Experiment,
        name: str,
        identity: str,
        revoked: threading.Event | None = None,
    ) -> None:
        """Look after the study's runs in one experiment until ``revoked``, after which no call is made any more."""
        self._store, self._revoked, self._experiment = client, revoked, str(experiment.experiment_id)
        self._root = local_path(experiment.artifact_location)
        self._study = {"gitdist.study": name, "gitdist.identity": identity}
        self._records: dict[RunKey, _Record] = {}

    @property
    def _client(self) -> MlflowClient:
        if self._revoked is not None and self._revoked.is_set():
            raise Revoked(f"the runs of study '{self._study['gitdist.study']}' are another driver's to write")
        return self._store

    def load(self) -> None:
        """Read all runs of the study at once, and delete what is there twice."""
        self._records = {}
        self._adopt({})

    def probe(self) -> None:
        """Return if the store answers, else raise what it raises."""
        self._client.get_experiment(self._experiment)

    def parent_id(self) -> str:
        """Return the id of the parent run, which is made where it is missing."""
        found = self._find(STUDY) or self._create(STUDY, self._study["gitdist.study"], {}, None)
        return found.run_id

    def find_run(self, key: RunKey) -> str | None:
        """Return the id of a run; None where there is none."""
        found = self._find(key)
        return None if found is None else found.run_id

    def check_location(self, run_id: str) -> None:
        """Return if files of a run belong where those of the experiment did when it was opened.

        A driver that sees the same results directory under another path may have changed the locations since.

        Raises:
            StudyError: they belong elsewhere now; opening the experiment again changes that back.
        """
        location = local_path(self._client.get_run(run_id).info.artifact_uri)
        if self._root is not None and location is not None and not location.is_relative_to(self._root):
            raise StudyError(f"another process has moved the MLflow artifacts from {self._root} to {location}")

    def bring(self, key: RunKey, wanted: DesiredRun, tags: Mapping[str, str], *, thorough: bool = False) -> Changes:
        """Make a run hold what is wanted.

        Args:
            key: which run.
            wanted: what it shall hold.
            tags: tags of all runs of the study.
            thorough: look at the curves and files also where the run's own tags say that it is complete.
        """
        try:
            return self._bring(key, wanted, tags, thorough)
        except Exception:
            self._records.pop(key, None)  # nobody knows how much of it arrived
            raise

    def end_orphans(self, known: Iterable[RunKey]) -> int:
        """Close every loaded run that is running and not ``known``; return how many."""
        strays = [key for key in self._records.keys() - set(known) if self._records[key].status == "RUNNING"]
        for key in strays:
            self._set_status(self._records[key], "KILLED")
        return len(strays)

    def _bring(self, key: RunKey, wanted: DesiredRun, tags: Mapping[str, str], thorough: bool) -> Changes:
        points, figures = wanted.points(), wanted.figures()
        parent = {} if key == STUDY else {"mlflow.parentRunId": self.parent_id()}
        record = self._find(key)
        created = record is None
        if record is None:
            record = self._create(key, wanted.name, parent, wanted.span().started_at)
        missing = self._missing(record, points, thorough)
        self._write(record, missing, figures, wanted.params, {**tags, **wanted.tags, **parent})
        self._remove(record, [tag for tag in PASSING_TAGS if tag in record.tags and tag not in wanted.tags])
        changed = record.status != wanted.status
        try:
            if wanted.status in ("FINISHED", "FAILED"):
                self._complete_files(record, wanted.files(), thorough)
        finally:  # the status is true also where only the artefact place fails
            if changed:
                self._set_status(record, wanted.status, wanted.span().ended_at)
        return Changes(created=created, steps=len(missing), status=changed and not created)

    def _find(self, key: RunKey) -> _Record | None:
        if key not in self._records:
            self._adopt(key.tags)
        return self._records.get(key)

    def _create(self, key: RunKey, name: str, parent: Mapping[str, str], started_at: float | None) -> _Record:
        tags = {**self._study, **key.tags, **parent}
        start_ms = None if started_at is None else to_ms(started_at)
        run = self._client.create_run(self._experiment, start_time=start_ms, tags=tags, run_name=name)
        try:
            self._adopt(key.tags)  # not the answer: a second driver, or a request sent twice, may have made another
        except Revoked:  # just now: the new owner has a run of its own and does not look for this one any more
            self._store.delete_run(run.info.run_id)
            raise
        return self._records[key]

    def _adopt(self, tags: Mapping[str, str]) -> None:
        """Note the study's runs with ``tags``, the oldest of each key, and delete the others."""
        for run in sorted(self._search(tags), key=lambda run: (run.info.start_time, run.info.run_id)):
            key = RunKey.of_tags(run.data.tags)
            record = _record(run)
            if self._records.setdefault(key, record).run_id != record.run_id:
                self._client.delete_run(record.run_id)

    def _search(self, tags: Mapping[str, str]) -> Iterator[Run]:
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in {**self._study, **tags}.items())
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                [self._experiment], filter_string=query, max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token or ""

    def _missing(self, record: _Record, points: Sequence[Point], thorough: bool) -> list[Point]:
        if not points:
            return []
        if record.steps is None:
            if not thorough and record.tags.get(_LAST_STEP) == str(points[-1].step):
                return []
            names = _covering(points)
            histories = [self._client.get_metric_history(record.run_id, name) for name in names]
            record.steps = {metric.step for history in histories for metric in history}
        return [point for point in points if point.step not in (record.steps or ())]

    def _write(
        self,
        record: _Record,
        points: Sequence[Point],
        figures: Point | None,
        params: Mapping[str, object],
        tags: Mapping[str, str],
    ) -> None:
        steps = (record.steps or set()) | {point.step for point in points}
        due_tags = {**tags, _LAST_STEP: str(max(steps))} if steps else dict(tags)
        due_tags = {name: value for name, value in due_tags.items() if record.tags.get(name) != value}
        due_params = {name: str(value) for name, value in params.items() if name not in record.params}
        due_figures = _differing(figures, record.figures)
        *batches, last = _batches([*points, *due_figures])
        for batch in batches:
            self._client.log_batch(record.run_id, metrics=batch)
        if last or due_params or due_tags:
            entities = [Param(*item) for item in due_params.items()], [RunTag(*item) for item in due_tags.items()]
            self._client.log_batch(record.run_id, last, *entities)
        record.steps = steps if record.steps is not None else None
        record.tags |= due_tags
        record.params |= due_params
        for point in due_figures:
            record.figures |= point.metrics

    def _remove(self, record: _Record, tags: Sequence[str]) -> None:
        for tag in tags:
            self._client.delete_tag(record.run_id, tag)
            del record.tags[tag]

    def _complete_files(self, record: _Record, files: Mapping[str, bytes], thorough: bool) -> None:
        digest = _digest(files)
        if not files or (record.tags.get(_FILES) == digest and not (thorough and self._lacks(record, files))):
            return
        self.check_location(record.run_id)
        with tempfile.TemporaryDirectory(prefix="gitdist-mlflow-") as directory:
            for name, content in files.items():
                (Path(directory) / name).write_bytes(content)
            self._client.log_artifacts(record.run_id, directory)
        self._client.set_tag(record.run_id, _FILES, digest)
        record.tags[_FILES] = digest

    def _lacks(self, record: _Record, files: Mapping[str, bytes]) -> bool:
        there = {file.path: file.file_size for file in self._client.list_artifacts(record.run_id)}
        return any(there.get(name) != len(content) for name, content in files.items())

    def _set_status(self, record: _Record, status: Status, ended_at: float | None = None) -> None:
        if status == "RUNNING":
            self._client.update_run(record.run_id, status=status)
        else:
            self._client.set_terminated(record.run_id, status, end_time=None if ended_at is None else to_ms(ended_at))
        record.status = status


def _record(run: Run) -> _Record:
    data = run.data
    return _Record(run.info.run_id, run.info.status, dict(data.tags), dict(data.params), dict(data.metrics))


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{name} {len(content)}\n".encode() + content)
    return whole.hexdigest()


def _differing(figures: Point | None, known: Mapping[str, float]) -> list[Point]:
    """Return the figures that are not ``known`` with the same value, as one point or none."""
    if figures is None:
        return []
    metrics = {name: value for name, value in figures.metrics.items() if known.get(name) != value}
    return [Point(figures.step, metrics, figures.time_ms)] if metrics else []


def _covering(points: Sequence[Point]) -> list[str]:
    """Return metrics such that each point has one of them: a single one where all points have it."""
    common = set.intersection(*(set(point.metrics) for point in points))
    if common:
        return [min(common)]
    names: list[str] = []
    for point in points:
        if not any(name in point.metrics for name in names):
            names.append(min(point.metrics))
    return names


def _batches(points: Iterable[Point]) -> list[list[Metric]]:
    """Return the metrics in batches, at least one; a step is never torn apart, so it arrives whole or not at all."""
    batches: list[list[Metric]] = [[]]
    for point in points:
        if batches[-1] and len(batches[-1]) + len(point.metrics) > _BATCH:
            batches.append([])
        batches[-1] += [Metric(name, value, point.time_ms, point.step) for name, value in point.metrics.items()]
    return batches
