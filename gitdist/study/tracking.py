"""MLflow: one experiment a study, one parent run, one child run a trial, all found by tag before they are created.

    rows.jsonl of a trial --the epochs its run does not have yet--> metrics of the run

Only the driver writes here, so no worker needs to reach the tracking server. A trial's rows file is the truth: each
event brings the run up to it, so what a failed write left out follows with the next one, and nothing is logged twice.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from gitdist.errors import StudyError, first_line
from gitdist.generator.training import TrainingStep
from gitdist.study.events import Outcome, Row
from gitdist.study.figures import write_per_class
from gitdist.study.paths import StudyPaths, TrialId
from gitdist.study.rows import read_rows

_LOGGED = ("train/loss", "train/accuracy", "lr", "draws", "waiting_s")
_EVERY_EPOCH = "train/loss"


def tracking_uri(paths: StudyPaths, configured: str | None) -> str:
    """Return the MLflow store: the spec's, else ``$MLFLOW_TRACKING_URI``, else the results directory's SQLite file."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.tracking_db.resolve()}"


class Tracker:
    """Writes one study to MLflow; an Observer of its trials.

    The study is known by ``identity``: one begun anew under an old name gets runs of its own.
    """

    def __init__(
        self, paths: StudyPaths, uri: str, identity: str, tags: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        """Open the store and find or create the study's experiment and parent run.

        Args:
            paths: the study's files; trial artefacts are read from its trial directories.
            uri: the MLflow tracking URI.
            identity: a name that no other study has.
            tags: tags of the parent run and of every child (spec hash, fingerprints).
            warn: told, in one line, when the store first fails while the study runs.

        Raises:
            StudyError: the tracking store cannot be opened.
        """
        self._paths, self._uri, self._warn = paths, uri, warn
        self._key = {"gitdist.study": paths.name, "gitdist.identity": identity}
        self._tags = {**self._key, **tags}
        self._runs: dict[TrialId, str] = {}
        self._logged: dict[TrialId, int] = {}
        self._open: set[str] = set()
        self._warned = False
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment = self._find_experiment(own_store=uri.startswith("sqlite:"))
            self.parent = self._begin(paths.name, {"gitdist.role": "study"})
        except Exception as error:  # MLflow passes on whatever its store raises
            raise StudyError(
                f"the MLflow store {uri} cannot be used ({first_line(error)}); name another by tracking.uri or "
                "MLFLOW_TRACKING_URI"
            ) from error

    @property
    def experiment_id(self) -> str:
        """The MLflow id of the study's experiment."""
        return self._experiment

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Find or create the trial's run and log its parameters."""
        self._write(self._start, trial, params)

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """Bring the trial's run up to its rows file, the epoch as the step."""
        self._write(self._catch_up, trial)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Log the trial's files and close its run with the true status."""
        self._write(self._finish, trial, outcome)

    def test_evaluated(self, trial: TrialId, metrics: Mapping[str, float]) -> None:
        """Log the final evaluation (``test/...``) of a chosen trial, which may have ended under an earlier driver."""

        def log() -> None:
            self._log(self._run_of(trial), metrics, step=0)
            self._close(self._run_of(trial), "FINISHED")

        self._write(log)

    def generator_started(self, params: Mapping[str, Any]) -> str:
        """Find or create the generator's run, log its parameters, and return the run's id."""
        run_id = self._begin("generator", {"gitdist.role": "generator"}, parent=self.parent)
        self._write(self._log_params, run_id, params)
        return run_id

    def generator_stepped(self, run_id: str, steps: Sequence[TrainingStep]) -> None:
        """Log the losses of training steps."""
        for step in steps:
            self._write(self._log, run_id, step.losses, step.step)

    def generator_ended(self, run_id: str, name: str, past: Sequence[TrainingStep], samples: Path) -> None:
        """Close the generator's run, and tag parent and coming trials with its name.

        Args:
            run_id: the generator's run.
            name: the artefact's name, or the kind of a generator without weights.
            past: steps of a training that this driver did not see; logged where the run has none.
            samples: picture of the generator's draws.
        """

        def end() -> None:
            self._tags["gitdist.generator"] = name
            for run in (run_id, self.parent):
                self._client.set_tag(run, "gitdist.generator", name)
            if past and not self._client.get_metric_history(run_id, next(iter(past[0].losses))):
                self.generator_stepped(run_id, past)
            self._client.log_artifact(run_id, str(samples))
            self._close(run_id, "FINISHED")

        self._write(end)

    def study_ended(self, summary: Mapping[str, Any]) -> None:
        """Log the summary and the resolved spec to the parent run and close it."""

        def end() -> None:
            scalars = {name: value for name, value in summary.items() if isinstance(value, int | float)}
            for role in ("best", "baseline"):
                chosen = summary[role] or {"val": {}, "test": {}}
                scalars |= {f"{role}/{name}": value for name, value in {**chosen["val"], **chosen["test"]}.items()}
            self._log(self.parent, scalars, step=0)
            for path in (self._paths.spec, self._paths.summary):
                self._client.log_artifact(self.parent, str(path))
            self._client.set_tag(self.parent, "mlflow.note.content", _note(summary))
            self._close(self.parent, "FINISHED")

        self._write(end)

    def stopped(self, status: str) -> None:
        """Close every run that this driver left open, with ``status`` (FAILED or KILLED)."""
        for run_id in sorted(self._open):
            self._write(self._close, run_id, status)

    def _write(self, operation: Callable[..., None], *arguments: Any) -> None:
        """Do a write that the study does not depend on; the rows files keep what it would have recorded."""
        try:
            operation(*arguments)
        except Exception as error:  # MLflow passes on whatever its store raises
            if not self._warned:
                self._warned = True
                self._warn(f"MLflow at {self._uri} cannot be written ({first_line(error)}); the study goes on")

    def _start(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        run_id = self._run_of(trial)
        self._log_params(run_id, params)
        history = self._client.get_metric_history(run_id, _EVERY_EPOCH)
        self._logged[trial] = max((metric.step for metric in history), default=0)

    def _catch_up(self, trial: TrialId) -> None:
        run_id = self._run_of(trial)
        for row in read_rows(self._paths.rows(trial)):
            if row["epoch"] > self._logged.get(trial, 0):
                names = [name for name in row if name in _LOGGED or name.startswith("val/")]
                scalars = {name: row[name] for name in names if isinstance(row[name], int | float)}
                self._log(run_id, scalars, step=row["epoch"])
                self._logged[trial] = row["epoch"]

    def _finish(self, trial: TrialId, outcome: Outcome) -> None:
        self._catch_up(trial)
        run_id = self._run_of(trial)
        for path in (self._paths.rows(trial), *write_per_class(self._paths.trial(trial))):
            if path.exists():
                self._client.log_artifact(run_id, str(path))
        if outcome.reason:
            self._client.set_tag(run_id, "gitdist.reason", outcome.reason[:500])
        self._close(run_id, "FINISHED" if outcome.state == "finished" else "FAILED")

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(run_id, metrics=[Metric(name, float(x), now, step) for name, x in metrics.items()])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def _run_of(self, trial: TrialId) -> str:
        if trial not in self._runs:
            tags: dict[str, str] = {"gitdist.role": trial.role}
            if trial.number is not None:
                tags["gitdist.trial"] = str(trial.number)
            name = "baseline" if trial.number is None else f"trial {trial.number:04d}"
            self._runs[trial] = self._begin(name, tags, parent=self.parent)
        return self._runs[trial]

    def _find_experiment(self, own_store: bool) -> str:
        experiment = self._client.get_experiment_by_name(self._paths.name)
        if experiment is not None:
            return str(experiment.experiment_id)
        place = (self._paths.artefacts / self._paths.name).resolve().as_uri() if own_store else None
        tags = {"mlflow.experimentKind": "custom_model_development"}  # opens as model training, not as GenAI
        return str(self._client.create_experiment(self._paths.name, artifact_location=place, tags=tags))

    def _begin(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Return the id of the study's run with these tags, now running; it is created only if there is none."""
        wanted = {**self._key, **tags}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        found = self._client.search_runs([self._experiment], filter_string=query, max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
        else:
            every_tag = {**self._tags, **tags, **({"mlflow.parentRunId": parent} if parent else {})}
            run_id = str(self._client.create_run(self._experiment, run_name=name, tags=every_tag).info.run_id)
        self._open.add(run_id)
        return run_id

    def _close(self, run_id: str, status: str) -> None:
        self._client.set_terminated(run_id, status=status)
        self._open.discard(run_id)


def _note(summary: Mapping[str, Any]) -> str:
    """Return the parent run's description in Markdown: the best trial beside the baseline."""
    best, baseline = summary["best"], summary["baseline"] or {"val": {}, "test": {}}
    params = ", ".join(f"{name} = {value}" for name, value in best["params"].items())
    lines = [
        f"Best on validation: trial {best['number']} ({params})",
        "",
        "| metric | baseline | best |",
        "|---|---|---|",
    ]
    for split in ("val", "test"):
        for name, value in best[split].items():
            beside = baseline[split].get(name)
            lines.append(f"| {name} | {'-' if beside is None else f'{beside:.4f}'} | {value:.4f} |")
    return "\n".join(lines)
