"""``gitdist run --submit``: the same command as a job of a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from gitdist.doctor.study_file import check_secrets
from gitdist.errors import SpecError, StudyError
from gitdist.study.files.results import refuse_credentials
from gitdist.study.submission import follow_job


def submit_run(
    name: str,
    file: Path,
    results: str,
    overrides: Sequence[str],
    address: str | None,
    *,
    scale: str | None,
    fork: str | None,
    take_over: bool,
) -> NoReturn:
    """Have ``gitdist run`` done by a job, write its log and exit as it does.

    Args:
        name: the study's, or the campaign's.
        file: the study file, below this working directory.
        results: an absolute path that all nodes see, or a URI.
        overrides: as given by ``--set``.
        address: of the Jobs API.
        scale: as given.
        fork: as given.
        take_over: as given.

    Raises:
        SpecError: a password or a key is in the study file, an override or the URI of the results.
        GitdistError: file or results are where the cluster does not find them, or the job cannot be submitted.
    """
    refuse_credentials(results)
    if not ("://" in results or Path(results).is_absolute()):
        raise StudyError(
            f"--results must be an absolute path on storage that all nodes see, or a URI, when a run is submitted, but "
            f"it is '{results}'; the job's own working directory is removed with it"
        )
    try:
        packed = file.resolve().relative_to(Path.cwd())
    except ValueError:
        raise StudyError(
            f"the study file must lie below the working directory, which travels with the job, but it is {file}; "
            "change to its directory"
        ) from None
    _refuse_passwords(file, overrides)
    command = ["python", "-m", "gitdist", "run", str(packed), "--results", results]
    for override in overrides:
        command += ["--set", override]
    for option, value in (("--scale", scale), ("--fork", fork)):
        command += [option, value] if value is not None else []
    command += ["--take-over"] if take_over else []
    raise typer.Exit(follow_job(fork or name, command, results, address, _write))


def _refuse_passwords(file: Path, overrides: Sequence[str]) -> None:
    for finding in check_secrets(file, file.read_text(), overrides):
        if finding.state == "problem":
            raise SpecError(
                f"what is submitted can be read in the cluster's dashboard, but {finding.seen}; {finding.remedy}"
            )


def _write(text: str) -> None:
    print(text, end="", flush=True)
