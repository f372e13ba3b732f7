"""URIs that users give, and text that holds some: detects secrets in them and masks these.

A secret is a password before the host, as in ``scheme://user:password@host``, or the value of an option whose name says
so, as in ``scheme://host/path?access_key=...``.
"""

import re
from urllib.parse import urlsplit, urlunsplit

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
    """Return ``text`` with ``***`` in place of every secret in its addresses."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def holds_secret(text: str) -> bool:
    """Return whether an address in ``text`` holds a secret."""
    return without_secrets(text) != text


def check_uri(address: str) -> None:
    """Return if an address is a path or can be parsed.

    Raises:
        ValueError: it cannot; the message continues the name of the setting.
    """
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https"):
            _ = parts.port
    except ValueError as error:
        shown = without_secrets(address)
        raise ValueError(f"must be an address such as scheme://host/path, but it is '{shown}' ({error})") from None


def refuse_secrets(address: str, remedy: str) -> None:
    """Return if an address holds no secret: addresses are stored, printed and sent to other machines.

    Raises:
        ValueError: it holds one, or cannot be parsed; the message continues the name of the setting and ends with
            ``remedy``, which says where the secret belongs.
    """
    if holds_secret(address):
        raise ValueError(f"must hold no credentials, but {without_secrets(address)} does; {remedy}")
    check_uri(address)


def join_uri(uri: str, name: str) -> str:
    """Return the URI of ``name`` below a URI; options stay."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
