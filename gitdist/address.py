"""Addresses that people give (URIs, and lines that hold some): whether one holds a secret, and how it is shown without.

A secret is a password before the host, as in ``scheme://user:password@host``, or the value of an option whose name says
so, as in ``scheme://host/path?access_key=...``.
"""

import re
from urllib.parse import urlsplit

_PASSWORD = re.compile(r"(://[^\s/:@'\"\[]*):(?!\d+(?:[/?#]|$))[^\s'\"]+@")  # one with '/' too, but no port
_NAMES = (
    "(?<!ssl)key",  # sslkey is PostgreSQL's option for a file
    "secret",
    "token",
    "passw",
    "pwd",
    "credential",
    "signature",
    "(?<![a-z])sas(?![a-z])",
    "(?<![a-z])sig(?![a-z])",
)
_OPTION = re.compile(rf"([?&][^\s=&'\"]*(?:{'|'.join(_NAMES)})[^\s=&'\"]*=)[^\s&#'\"]+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return ``text`` with ``***`` in the place of every secret in its addresses."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def holds_secret(text: str) -> bool:
    """Tell whether an address in ``text`` holds a secret."""
    return without_secrets(text) != text


def check_address(address: str) -> None:
    """Accept an address that can be taken apart, or a path.

    Raises:
        ValueError: it cannot; the message goes on after the name of what it was given as.
    """
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https"):
            _ = parts.port
    except ValueError as error:
        shown = without_secrets(address)
        raise ValueError(f"must be an address such as scheme://host/path, but it is '{shown}' ({error})") from None


def refuse_secrets(address: str, remedy: str) -> None:
    """Accept what ``check_address`` does, without secrets: addresses are stored, printed and sent to other machines.

    Args:
        address: what was given.
        remedy: where its secret belongs.

    Raises:
        ValueError: it holds one, or cannot be taken apart; the message goes on after the name of what it was given as.
    """
    if holds_secret(address):
        raise ValueError(f"must hold no credentials, but {without_secrets(address)} does; {remedy}")
    check_address(address)
