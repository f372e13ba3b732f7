"""MLflow: one experiment a study, one parent run, one child run a trial, all found by tag before they are created.

Only the driver writes here, so no worker needs to reach the tracking server.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Experiment, Metric, Param, Run
from mlflow.tracking import MlflowClient

from gitdist.errors import StudyError
from gitdist.study.events import Outcome, Row
from gitdist.study.figures import write_per_class
from gitdist.study.paths import StudyPaths, TrialId

_LOGGED = ("train/loss", "train/accuracy", "lr", "draws", "waiting_s")


def tracking_uri(paths: StudyPaths, configured: str | None) -> str:
    """Return the MLflow store: the spec's, else ``$MLFLOW_TRACKING_URI``, else the results directory's SQLite file."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.tracking_db.resolve()}"


class Tracker:
    """Writes one study to MLflow; an Observer of its trials.

    Args:
        paths: the study's files; trial artefacts are read from its trial directories.
        uri: the MLflow tracking URI.
        tags: tags of the parent run and of every child (spec hash, fingerprints).

    Raises:
        StudyError: the tracking store cannot be opened.
    """

    def __init__(self, paths: StudyPaths, uri: str, tags: Mapping[str, str]) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._paths = paths
        self._tags = {"gitdist.study": paths.name, **tags}
        self._runs: dict[TrialId, str] = {}
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment = self._find_experiment(own_store=uri.startswith("sqlite:"))
            self.parent = self._find_run(paths.name, {"gitdist.role": "study"})
        except Exception as error:  # MLflow passes on whatever its store raises
            first_line = str(error).splitlines()[0]
            raise StudyError(
                f"the MLflow store {uri} cannot be used ({first_line}); "
                "name another by tracking.uri or MLFLOW_TRACKING_URI"
            ) from error

    @property
    def experiment_id(self) -> str:
        """The MLflow id of the study's experiment."""
        return str(self._experiment)

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Find or create the trial's run and log its parameters."""
        run_id = self._run_of(trial)
        self._client.set_terminated(run_id, status="RUNNING")
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """Log an epoch's scalars with the epoch as the step."""
        names = [name for name in row if name in _LOGGED or name.startswith("val/")]
        scalars = {name: row[name] for name in names if isinstance(row[name], int | float)}
        self._log(self._run_of(trial), scalars, step=int(row["epoch"]))

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Log the trial's files and close its run with the true status."""
        run_id = self._run_of(trial)
        directory = self._paths.trial(trial)
        for path in (directory / "rows.jsonl", *write_per_class(directory)):
            if path.exists():
                self._client.log_artifact(run_id, str(path))
        if outcome.reason:
            self._client.set_tag(run_id, "gitdist.reason", outcome.reason[:500])
        self._client.set_terminated(run_id, status="FINISHED" if outcome.state == "finished" else "FAILED")

    def test_evaluated(self, trial: TrialId, metrics: Mapping[str, float]) -> None:
        """Log the final evaluation (``test/...``) of a chosen trial."""
        self._log(self._run_of(trial), metrics, step=0)

    def study_ended(self, summary: Mapping[str, Any]) -> None:
        """Log the summary and the resolved spec to the parent run and close it."""
        scalars = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        for role in ("best", "baseline"):
            chosen = summary[role] or {"val": {}, "test": {}}
            scalars |= {f"{role}/{name}": value for name, value in {**chosen["val"], **chosen["test"]}.items()}
        self._log(self.parent, scalars, step=0)
        for path in (self._paths.spec, self._paths.summary):
            self._client.log_artifact(self.parent, str(path))
        self._client.set_tag(self.parent, "mlflow.note.content", _note(summary))
        self._client.set_terminated(self.parent, status="FINISHED")

    def generator_run(self, params: Mapping[str, Any]) -> str:
        """Find or create the generator's run and log its parameters; returns the run's id."""
        run_id = self._find_run("generator", {"gitdist.role": "generator"}, parent=self.parent)
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])
        return run_id

    def tag_generator(self, run_id: str, name: str) -> None:
        """Tag the generator's run, the parent and all trials that start from now on with the generator's name."""
        self._tags["gitdist.generator"] = name
        for run in (run_id, self.parent):
            self._client.set_tag(run, "gitdist.generator", name)

    def log_step(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        """Log scalars of any run of the study."""
        self._log(run_id, metrics, step)

    def log_file(self, run_id: str, path: Path) -> None:
        """Log a file of any run of the study as an artefact."""
        self._client.log_artifact(run_id, str(path))

    def end(self, run_id: str, status: str) -> None:
        """Close a run with ``status`` (FINISHED, FAILED, KILLED)."""
        self._client.set_terminated(run_id, status=status)

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(run_id, metrics=[Metric(name, float(x), now, step) for name, x in metrics.items()])

    def _run_of(self, trial: TrialId) -> str:
        if trial not in self._runs:
            tags: dict[str, str] = {"gitdist.role": trial.role}
            if trial.number is not None:
                tags["gitdist.trial"] = str(trial.number)
            name = "baseline" if trial.number is None else f"trial {trial.number:04d}"
            self._runs[trial] = self._find_run(name, tags, parent=self.parent)
        return self._runs[trial]

    def _find_experiment(self, own_store: bool) -> str:
        experiment: Experiment | None = self._client.get_experiment_by_name(self._paths.name)
        if experiment is not None:
            return str(experiment.experiment_id)
        place = (self._paths.artefacts / self._paths.name).resolve().as_uri() if own_store else None
        tags = {"mlflow.experimentKind": "custom_model_development"}  # opens as model training, not as GenAI
        return str(self._client.create_experiment(self._paths.name, artifact_location=place, tags=tags))

    def _find_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Return the id of the study's run with these tags, creating it only if there is none."""
        wanted = {"gitdist.study": self._paths.name, **tags}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        found: list[Run] = self._client.search_runs([self._experiment], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        every_tag = {**self._tags, **tags, **({"mlflow.parentRunId": parent} if parent else {})}
        run = self._client.create_run(self._experiment, run_name=name, tags=every_tag)
        return str(run.info.run_id)


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
