"""Whether a cluster lets in who brings no token: asked by a process of its own, since Ray keeps a token once read."""

import os
import subprocess
import sys

from gitdist.doctor.machine import AUTH_MODE
from gitdist.doctor.patience import OutOfPatience

_LIMIT_S = 60.0  # Ray is imported from a cold disk
_ASK = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
    print("open")
except AuthenticationError:
    print("closed")
"""


def asks_for_token(address: str) -> bool:
    """Tell whether a Ray head refuses a request without a token.

    Args:
        address: ``HOST:PORT``, where it listens.

    Raises:
        OutOfPatience: it does neither that nor answer.
    """
    command = [sys.executable, "-c", _ASK, address]
    environment = {**os.environ, AUTH_MODE: "disabled"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise OutOfPatience(f"no answer within {_LIMIT_S:g} s") from None
    if done.returncode:
        raise OutOfPatience(done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}")
    return done.stdout.strip() == "closed"
