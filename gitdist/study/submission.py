"""A command as a job of a Ray cluster: packed and submitted by the Jobs API, run there, followed here.

What was submitted goes on when nobody follows; the very same command given again follows it. Only the working directory
travels: no variable of this environment, since those of a job can be read in the dashboard.
"""

import asyncio
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from gitdist.errors import RayUnavailableError, StudyError, first_line

_LEFT_OUT = [".git", ".venv", "venv", "results", "**/__pycache__", "**/*.npz"]  # beside what .gitignore names
_STUDY, _RESULTS = "gitdist.study", "gitdist.results"
_OPEN = ("PENDING", "RUNNING")
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # of the environment, the first before the second
_PAUSE_S = 2.0  # before a log that broke off is asked for again


def follow_job(
    study: str, command: Sequence[str], results: str, address: str | None, write: Callable[[str], None]
) -> int:
    """Submit a command that runs a study, unless it is under way as a job, and follow its log to its end.

    Args:
        study: the study's name.
        command: the job's command line, run in a copy of this working directory; ``--take-over``, if any, is its last
            word.
        results: where the study's results go, on storage that all nodes see.
        address: of the Jobs API, such as ``http://127.0.0.1:8265``; None = ``$RAY_API_SERVER_ADDRESS``, else the one of
            the cluster at ``$RAY_ADDRESS``, else of the cluster on this machine.
        write: takes the log, in pieces.

    Returns:
        the command's exit code; 1 where the job was stopped or never began.

    Raises:
        StudyError: the Jobs API is not installed here, another command runs the study as a job, or the job cannot be
            submitted or followed.
        RayUnavailableError: nothing answers there, or it wants a token.
    """
    client = _connect(address)
    place, entrypoint = client.get_address(), shlex.join(command)
    try:
        found = _job_under_way(client, study, results)
        if found is None:
            job = client.submit_job(
                entrypoint=entrypoint,
                submission_id=f"gitdist-{study}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(Path.cwd()), "excludes": _LEFT_OUT},
                metadata={_STUDY: study, _RESULTS: results},
            )
        else:
            job = str(found.submission_id)
    except (RuntimeError, ValueError, OSError) as error:
        raise StudyError(f"the job cannot be submitted to {place} ({first_line(error)})") from None
    stop = f"ray job stop {job} --address {place}"
    if found is None:
        write(f"job {job} submitted to {place}; it goes on without this command. Stop it by: {stop}\n")
    elif found.entrypoint.removesuffix(" --take-over") == entrypoint:
        write(f"job {job} of this study is under way at {place}; following it. Stop it by: {stop}\n")
    else:
        raise StudyError(
            f"a job under way is followed by the very command that it was submitted with, without --take-over, but "
            f"{job} runs study '{study}' by: {found.entrypoint}; wait for its end, or stop it first by: {stop}"
        )
    return _follow(client, job, write)


@contextmanager
def _without_addresses() -> Iterator[None]:
    """Take the addresses out of the environment: Ray lets them override the one that it is given."""
    kept = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _connect(address: str | None) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        with _without_addresses() if address else nullcontext():
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise RayUnavailableError(
            f"the Ray cluster asks for its token ({first_line(error)}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH to a file with it"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        named = address or next(filter(None, map(os.environ.get, _ADDRESSES)), "this machine")
        raise RayUnavailableError(
            f"no Jobs API of Ray answers at '{named}' ({first_line(error)}); give the dashboard's "
            "address by --address http://HOST:8265, and have ray[default] installed here and there"
        ) from None


def _job_under_way(client: Any, study: str, results: str) -> Any:
    wanted = {_STUDY: study, _RESULTS: results}
    jobs = (job for job in client.list_jobs() if job.status in _OPEN)
    return next((job for job in jobs if wanted.items() <= (job.metadata or {}).items()), None)


def _follow(client: Any, job: str, write: Callable[[str], None]) -> int:
    """Write a job's log until it ends, however often the log breaks off, and return its exit code."""
    from aiohttp import ClientError

    written = 0  # characters of the log, which comes from its beginning each time

    async def tail() -> None:
        nonlocal written
        begin = 0
        async for text in client.tail_job_logs(job):
            write(text[max(0, written - begin) :])
            begin += len(text)
            written = max(written, begin)

    try:
        while True:
            with suppress(ClientError, RuntimeError):  # the job's status tells what that means
                asyncio.run(tail())
            known = client.get_job_info(job)
            if known.status not in _OPEN:
                break
            time.sleep(_PAUSE_S)
        with suppress(RuntimeError):  # its node is gone
            write(client.get_job_logs(job)[written:])
    except (RuntimeError, ValueError, OSError) as error:
        raise StudyError(
            f"job {job} at {client.get_address()} cannot be followed any more ({first_line(error)}), but may go on; "
            "the same command follows it again"
        ) from None
    if known.status == "SUCCEEDED":
        return 0
    if known.driver_exit_code is None:
        write(f"job {job} {str(known.status).lower()}: {known.message}\n")
    return known.driver_exit_code or 1
