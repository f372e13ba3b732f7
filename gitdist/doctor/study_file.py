"""Secrets that a study file, or an override of it, should not hold: every copy of the study would hold them too."""

from collections.abc import Iterable
from pathlib import Path

from gitdist.address import holds_secret, without_secrets
from gitdist.doctor.finding import HERE, Finding

_REMEDY = (
    "take it out and change it; give it in the environment: PGPASSWORD or ~/.pgpass, MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


def check_secrets(file: Path, text: str, overrides: Iterable[str]) -> list[Finding]:
    """Find secrets in addresses; what is shown of them is without.

    Args:
        file: the study file, for messages.
        text: what it holds.
        overrides: the ``FIELD=VALUE`` of the command line.
    """
    lines = [(f"{file}, line {number}", line) for number, line in enumerate(text.splitlines(), 1)]
    lines += [("--set", override) for override in overrides]
    found = [
        Finding(
            "secrets", HERE, "problem", f"{where}: a secret in an address: {without_secrets(line).strip()}", _REMEDY
        )
        for where, line in lines
        if holds_secret(line)
    ]
    return found or [Finding("secrets", HERE, "ok", f"no secret in an address in {file}")]
