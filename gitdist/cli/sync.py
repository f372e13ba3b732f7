"""``gitdist sync``: MLflow brought up to a study's files."""

from rich.console import Console

from gitdist.address import without_secrets
from gitdist.cli.studies import stored_study
from gitdist.errors import StudyError
from gitdist.study.compatibility import describe_edit
from gitdist.study.files.results import Results
from gitdist.study.study import Study
from gitdist.study.study_record import sync_mlflow


def sync_stored_study(study: str, results: Results, console: Console) -> None:
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
    with Study.open(paths, spec) as opened:
        owner = opened.owner()
        if owner is not None:
            raise StudyError(
                f"study '{spec.name}' is being run by pid {owner.pid} on {owner.host}, which keeps MLflow up to date "
                "itself; sync it when that driver has ended"
            )
        edit = describe_edit(paths, opened.ledger.get_attr)
        uri, counts = sync_mlflow(opened)
    if edit:
        console.print(edit, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"MLflow at {without_secrets(uri)} has all of study '{spec.name}': {counts.runs_created} runs created, "
        f"{counts.epochs_added} epochs added, {counts.statuses_fixed} statuses fixed",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
