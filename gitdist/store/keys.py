"""The name of an artefact: a hash of all that determines it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

FORMAT_VERSION = 1


class ArtefactId(NamedTuple):
    """What an artefact is and the hash of what determines it; as text, its name in ``locks/`` and ``work/``."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.key}"


def canonical_json(spec: Mapping[str, Any]) -> str:
    """Return the one JSON text of ``spec``: sorted keys, no blanks."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(kind: str, spec: Mapping[str, Any]) -> str:
    """Return the name of the artefact that ``spec`` determines: 20 hexadecimal digits."""
    text = canonical_json({"format": FORMAT_VERSION, "kind": kind, "spec": spec})
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
