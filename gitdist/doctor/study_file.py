"""Passwords that a study file, or an override of it, should not hold: every copy of the study would hold them too."""

import re
from collections.abc import Iterable
from pathlib import Path

from gitdist.doctor.finding import HERE, Finding
from gitdist.study.tracking.place import without_password

_USER_AND_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:[^\s/@'\"]+@", re.IGNORECASE)
_PARAMETER = re.compile(r"[?&](password|passwd|secret|secret_key|access_key|token|api_key)=[^\s&'\"]+", re.IGNORECASE)
_REMEDY = (
    "take it out and change it; give it in the environment: PGPASSWORD or ~/.pgpass, MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


def check_secrets(file: Path, text: str, overrides: Iterable[str]) -> list[Finding]:
    """Find passwords in addresses; what is shown of them is without.

    Args:
        file: the study file, for messages.
        text: what it holds.
        overrides: the ``FIELD=VALUE`` of the command line.
    """
    lines = [(f"{file}, line {number}", line) for number, line in enumerate(text.splitlines(), 1)]
    lines += [("--set", override) for override in overrides]
    found = [
        Finding("secrets", HERE, "problem", f"{where}: a password in an address: {_hidden(line)}", _REMEDY)
        for where, line in lines
        if _USER_AND_PASSWORD.search(line) or _PARAMETER.search(line)
    ]
    return found or [Finding("secrets", HERE, "ok", f"no password in an address in {file}")]


def _hidden(line: str) -> str:
    return _PARAMETER.sub(lambda match: f"{match[0].partition('=')[0]}=***", without_password(line)).strip()
