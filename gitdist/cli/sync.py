"""``gitdist sync``: MLflow brought up to a study's files."""

from pathlib import Path

from rich.console import Console

from gitdist.address import without_secrets
from gitdist.cli.studies import opened_ledger, stored_study
from gitdist.errors import StudyError
from gitdist.study.compatibility import describe_edit
from gitdist.study.files.results import Mirror
from gitdist.study.monitoring.mlflow.sync import sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.status import present_owner
from gitdist.study.study_record import read_study_record


def sync_stored_study(study: str, results: Path | Mirror, console: Console) -> None:
    """Bring MLflow up to a study's files and print what it lacked.

    Args:
        study: its name, or the path of its file.
        results: the results directory, or the results on an object store.
        console: where to print.

    Raises:
        StudyError: there is no such study, a driver runs it, or the store does not answer.
        StoreError: the results directory is read-only.
    """
    paths, spec = stored_study(study, results)
    paths.check_writable()
    with opened_ledger(paths, spec) as ledger:
        owner = present_owner(ledger)
        if owner is not None:
            raise StudyError(
                f"study '{spec.name}' is being run by pid {owner.pid} on {owner.host}, which keeps MLflow up to date "
                "itself; sync it when that driver has ended"
            )
        edit = describe_edit(paths, ledger.get_attr)
        record = read_study_record(paths, spec, ledger)
    if edit:
        console.print(edit, highlight=False, markup=False, soft_wrap=True)
    uri = tracking_uri(paths, spec.tracking.uri)
    counts = sync_study(paths, uri, record)
    console.print(
        f"MLflow at {without_secrets(uri)} has all of study '{spec.name}': {counts.runs_created} runs created, "
        f"{counts.epochs_added} epochs added, {counts.statuses_fixed} statuses fixed",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
