"""MLflow: one experiment a study, one parent run, one run for ever for each trial, all brought to what is true.

    driver's loop --an event--> the newest wanted state of a run --> Outbox (a thread) --> StudyRuns --> MLflow

No call of the driver's loop waits for MLflow. Only the driver writes there, so no worker needs to reach the server.
What could not be written stays due until the store is back; ``sync_study`` fills in what a driver left undone.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gitdist.address import without_secrets
from gitdist.errors import StudyError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Observer, Outcome, Row, TrialStates
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.times import Span, Times
from gitdist.study.monitoring.mlflow.content import (
    GENERATOR,
    STUDY,
    DesiredRun,
    Point,
    RunKey,
    Status,
    generator_content,
    loss_points,
    trial_content,
    trial_contents,
)
from gitdist.study.monitoring.mlflow.outbox import Outbox
from gitdist.study.monitoring.mlflow.parent_run import generator_span, study_content
from gitdist.study.monitoring.mlflow.runs import StudyRuns
from gitdist.study.monitoring.mlflow.store import explain, is_outage, open_experiment, unusable

PATIENCE_S = 20.0  # how long the end of a driver waits for MLflow

_ALL = RunKey("all")  # not a run: whatever the store has is to be compared with what is wanted


class Tracker(Observer):
    """Keeps one study's runs in MLflow true.

    The study is known by ``identity``: one begun anew under an old name gets runs of its own. Its methods are called by
    one thread.
    """

    def __init__(
        self,
        paths: StudyPaths,
        uri: str,
        identity: str,
        tags: Mapping[str, str],
        warn: Callable[[str], None],
        check_owner: Callable[[], None] = lambda: None,
        times: Times | None = None,
    ) -> None:
        """Open the store and find or create the study's experiment and parent run; a server may be down meanwhile.

        Args:
            paths: the study's files; what the runs hold is read from them.
            uri: the MLflow tracking URI.
            identity: a name that no other study has.
            tags: tags of the parent run and of every child (spec hash, fingerprints).
            warn: told in one line, on a thread of its own, when the store fails and when it is back.
            check_owner: called before every write; raises StudyError once another driver owns the study.
            times: the study's, as they are being noted; None = those of its file.

        Raises:
            StudyError: the store cannot be used, now or later.
        """
        self._paths, self._uri, self._identity, self._tell = paths, uri, identity, warn
        self._tags = dict(tags)
        self._runs: StudyRuns | None = None
        self._parent: str | None = None  # id of the parent run, as far as it is known
        self._abandoned = threading.Event()
        self._check_owner = check_owner
        self._losses: dict[int, Point] = {}
        self._times = times or Times(paths)
        self._wanted = {STUDY: study_content(paths, "RUNNING", times=self._times)}
        try:
            self._deliver(STUDY)
        except Exception as error:  # MLflow passes on whatever its store raises
            if not is_outage(uri, error):
                raise unusable(uri, error) from error
        self._deliveries = Outbox(self._deliver, self._warn, self._reassure)
        self._deliveries.mark(STUDY)

    def reconcile(self, states: TrialStates) -> None:
        """Compare MLflow with what the ledger says of all trials ever, and mend what differs.

        Trials that have not ended are shown as killed until they start again, as are runs of unknown trials that an
        earlier driver left running. Call it before any other event.
        """
        self._wanted = trial_contents(self._paths, states, self._times) | self._wanted
        self._deliveries.mark(_ALL)

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """The trial's run is running."""
        self._want(RunKey.of_trial(trial), self._trial_content(trial, params, None))

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """The trial's run has the epochs of its rows file."""
        self._want(RunKey.of_trial(trial), self._content_of(trial))

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """The trial's run has its files and its true status."""
        params = self._content_of(trial).params
        self._want(RunKey.of_trial(trial), self._trial_content(trial, params, outcome))

    def test_evaluated(self, trial: TrialId) -> None:
        """The run of a chosen trial has the metrics of its test.json; it may have ended under an earlier driver."""
        self._want(RunKey.of_trial(trial), replace(self._content_of(trial), status="FINISHED"))

    def generator_started(self, params: Mapping[str, Any]) -> None:
        """The generator's run is running."""
        self._want(GENERATOR, generator_content(params, self._losses, "RUNNING", self._generator_span))

    def generator_stepped(self, steps: Sequence[TrainingStep]) -> None:
        """The generator's run has the losses of training steps."""
        self._losses |= loss_points(steps)
        self._deliveries.mark(GENERATOR)

    def generator_failed(self) -> None:
        """The generator's run is failed; nothing is known of one whose training was only interrupted."""
        self._want(GENERATOR, replace(self._wanted[GENERATOR], status="FAILED"))

    def generator_ended(self, name: str, past: Sequence[TrainingStep], samples: Path) -> None:
        """The generator's run is finished; parent and trials are tagged with its name.

        Args:
            name: the artefact's name, or the kind of a generator without weights.
            past: steps of its training; those that were not reported here are added where the run lacks them.
            samples: picture of the generator's draws.
        """
        points = loss_points(past, self._generator_span().ended_at)
        self._losses |= {step: point for step, point in points.items() if step not in self._losses}
        self._tags = {**self._tags, "gitdist.generator": name}
        params = self._wanted[GENERATOR].params if GENERATOR in self._wanted else {}
        self._wanted[GENERATOR] = generator_content(params, self._losses, "FINISHED", self._generator_span, samples)
        self._deliveries.mark(*self._wanted)

    def watched(self) -> None:
        """The parent run has the figures of ``watch.jsonl``; any thread may call this."""
        self._deliveries.mark(STUDY)

    def study_ended(self, summary: Mapping[str, Any]) -> None:
        """The parent run has the summary and the resolved spec, and is finished."""
        self._want(STUDY, study_content(self._paths, "FINISHED", summary, self._times))

    def close(self, status: Status = "KILLED", patience_s: float = PATIENCE_S) -> None:
        """End the driver's part: what is still running gets its last status, and MLflow ``patience_s`` to take it all.

        Args:
            status: of the parent run, unless the study ended.
            patience_s: how long to wait for a store that is slow or down; what it lacks then is told in one line.
        """
        for key, content in list(self._wanted.items()):
            if content.status == "RUNNING":
                self._want(key, replace(content, status=status if key == STUDY else "KILLED"))
        left = self._deliveries.close(patience_s)
        if left:
            lacking = len(self._wanted) if _ALL in left else len(left)
            whose = "1 run's" if lacking == 1 else f"{lacking} runs'"
            self._tell(
                f"MLflow at {without_secrets(self._uri)} lacks {whose} newest figures; "
                f"`gitdist sync {self._paths.name} --results {self._paths.place}` fills them in when it is back"
            )

    def abandon(self) -> None:
        """Write nothing more, not even the rest of what is under way: another driver owns the study now.

        Returns after a moment, also where MLflow hangs; every later call does nothing.
        """
        self._abandoned.set()
        self._deliveries.abandon()

    def flush(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until MLflow has everything, at most ``patience_s``; tell whether it has."""
        return not self._deliveries.flush(patience_s)

    def _content_of(self, trial: TrialId) -> DesiredRun:
        return self._wanted.get(RunKey.of_trial(trial)) or self._trial_content(trial, {}, None)

    def _trial_content(self, trial: TrialId, params: Mapping[str, Any], outcome: Outcome | None) -> DesiredRun:
        return trial_content(self._paths, trial, params, outcome, self._times)

    def _generator_span(self) -> Span:
        return generator_span(self._paths, self._times)

    def _want(self, key: RunKey, content: DesiredRun) -> None:
        self._wanted[key] = content
        self._deliveries.mark(key)

    def _deliver(self, key: RunKey) -> None:
        try:
            self._check_owner()
        except StudyError:
            return  # what is true is the new owner's to tell
        try:
            self._bring(key)
        except Exception:
            self._runs = None  # the store may come back as another one
            raise

    def _bring(self, key: RunKey) -> None:
        if self._runs is None:
            experiment = open_experiment(self._paths, self._uri, self._identity)
            self._runs = StudyRuns(*experiment, self._paths.name, self._identity, self._abandoned)
        if key == _ALL:
            self._runs.load()
            self._runs.end_orphans(tuple(self._wanted))  # a copy: the driver goes on adding
            self._deliveries.mark(*self._wanted)
        else:
            self._runs.bring(key, self._wanted[key], self._tags)
        before, self._parent = self._parent, self._runs.parent_id()
        if before not in (None, self._parent):
            self._deliveries.mark(_ALL)  # what the store had is gone

    def _warn(self, error: Exception) -> None:
        self._tell(
            f"MLflow at {without_secrets(self._uri)} cannot be written ({explain(error)}); the study goes on, and "
            "what is missing follows when it is back"
        )

    def _reassure(self) -> None:
        self._tell(f"MLflow at {without_secrets(self._uri)} is back and has everything")
