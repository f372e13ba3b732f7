"""Where this machine keeps what belongs to results on an object store."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from gitdist.address import refuse_secrets
from gitdist.errors import SpecError

_HOME = "GITDIST_MIRROR"
_USUAL = Path("~/.cache/gitdist/mirrors")
_REMEDY = (
    "give them on every node by its role, its profile or its environment (AWS_ACCESS_KEY_ID, "
    "GOOGLE_APPLICATION_CREDENTIALS)"
)
_DIGITS = 12  # of the hash of a URI


def home_of(uri: str) -> Path:
    """Return this user's directory on this machine for the results at a URI: below ``$GITDIST_MIRROR`` or ~/.cache."""
    base = Path(os.environ.get(_HOME) or _USUAL).expanduser().absolute()
    last = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(uri).path.rstrip("/").rpartition("/")[2])
    digest = hashlib.blake2b(uri.rstrip("/").encode(), digest_size=_DIGITS // 2).hexdigest()
    return base / f"{last or 'results'}-{digest}"


def store_home(uri: str) -> Path:
    """Return the directory of this machine's store for the results at a URI."""
    return home_of(uri) / "store"


def below(uri: str, name: str) -> str:
    """Return the URI of what is called ``name`` below a URI; options stay."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def refuse_credentials(uri: str) -> None:
    """Refuse a URI that holds a password or a key: it is printed, and seen by whoever lists this machine's processes.

    Raises:
        SpecError: it does, or it is no URI.
    """
    try:
        refuse_secrets(uri, _REMEDY)
    except ValueError as error:
        raise SpecError(f"--results {error}") from None
