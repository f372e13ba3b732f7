"""A report's files in MLflow: logged to the parent run of a study, whoever drives it meanwhile."""

from collections.abc import Sequence
from pathlib import Path

from gitdist.study.files.layout import StudyPaths
from gitdist.study.monitoring.mlflow.content import STUDY
from gitdist.study.monitoring.mlflow.runs import StudyRuns
from gitdist.study.monitoring.mlflow.store import open_experiment, takes_files, unusable

_PLACE = "report"


def log_report(paths: StudyPaths, uri: str, directory: Path, files: Sequence[Path]) -> bool:
    """Log a report's files to a study's parent run, as ``report/...``; tell whether there is such a run.

    Args:
        paths: the study's files; its identity tells the run.
        uri: the MLflow tracking URI.
        directory: the report's; the files keep their places in it.
        files: what to log.

    Raises:
        StudyError: the store cannot be used.
        StoreError: the store's files belong in the results directory, which is read-only.
    """
    if not paths.identity.exists():
        return False
    if takes_files(uri):
        paths.check_writable()
    try:
        identity = paths.identity.read_text().strip()
        client, experiment = open_experiment(paths, uri, identity)
        runs = StudyRuns(client, experiment, paths.name, identity)
        run = runs.find_run(STUDY)
        if run is None:
            return False
        runs.check_location(run)
        for file in files:
            place = (Path(_PLACE) / file.relative_to(directory)).parent
            client.log_artifact(run, str(file), place.as_posix())
    except Exception as error:  # MLflow passes on whatever its store raises
        raise unusable(uri, error) from error
    return True
