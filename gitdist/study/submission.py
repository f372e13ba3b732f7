"""A command as a job of a Ray cluster: packed and submitted by the Jobs API, run there, followed here.

What was submitted goes on when nobody follows; the same command given again follows it. Only the working directory
travels: no variable of this environment, since those of a job can be read in the dashboard.
"""

import asyncio
import secrets
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gitdist.errors import RayTrouble, StudyError, first_line

_LEFT_OUT = [".git", ".venv", "venv", "results", "**/__pycache__", "**/*.npz"]  # beside what .gitignore names
_STUDY, _RESULTS = "gitdist.study", "gitdist.results"
_OPEN = ("PENDING", "RUNNING")


def follow_job(
    study: str, command: Sequence[str], results: str, address: str | None, write: Callable[[str], None]
) -> int:
    """Submit a command that runs a study, unless a job of that study is under way, and follow its log to its end.

    Args:
        study: the study's name.
        command: the job's command line, run in a copy of this working directory.
        results: where the study's results go, on storage that all nodes see.
        address: of the Jobs API, such as ``http://127.0.0.1:8265``; None = ``$RAY_API_SERVER_ADDRESS``, else the
            cluster on this machine.
        write: takes the log, in pieces.

    Returns:
        the command's exit code; 1 where the job was stopped or never began.

    Raises:
        StudyError: the Jobs API is not installed here, or the job cannot be submitted.
        RayTrouble: nothing answers there, or it wants a token.
    """
    client = _connect(address)
    try:
        job = _job_under_way(client, study, results)
        if job is None:
            job = client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=f"gitdist-{study}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(Path.cwd()), "excludes": _LEFT_OUT},
                metadata={_STUDY: study, _RESULTS: results},
            )
            write(f"job {job} submitted; it goes on without this command. Stop it by: ray job stop {job}\n")
        else:
            write(f"job {job} of this study is under way; following it\n")
        asyncio.run(_tail(client, job, write))
        ended = client.get_job_info(job)
    except (RuntimeError, ValueError, OSError) as error:
        raise StudyError(f"the job cannot be submitted or followed ({first_line(error)})") from None
    if ended.status == "SUCCEEDED":
        return 0
    if ended.driver_exit_code is None:
        write(f"job {job} {str(ended.status).lower()}: {ended.message}\n")
    return ended.driver_exit_code or 1


def _connect(address: str | None) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise RayTrouble(
            f"the Ray cluster asks for its token ({first_line(error)}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH to a file with it"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RayTrouble(
            f"no Jobs API of Ray answers at '{address or 'this machine'}' ({first_line(error)}); give the dashboard's "
            "address by --address http://HOST:8265, and have ray[default] installed here and there"
        ) from None


def _job_under_way(client: Any, study: str, results: str) -> str | None:
    wanted = {_STUDY: study, _RESULTS: results}
    for job in client.list_jobs():
        if job.status in _OPEN and wanted.items() <= (job.metadata or {}).items():
            return str(job.submission_id)
    return None


async def _tail(client: Any, job: str, write: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        write(lines)
