"""The templates in cluster/, as their readers see them."""

import re
from pathlib import Path
from typing import Any

import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"


def documents(name: str) -> list[dict[str, Any]]:
    """The YAML documents of a template."""
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def document(name: str) -> dict[str, Any]:
    """The only YAML document of a template."""
    (only,) = documents(name)
    return only


def is_pinned(image: str) -> bool:
    """Whether an image's name says which one: a tag with a version, or a digest."""
    if re.search(r"@sha256:[0-9a-f]{64}$", image):
        return True
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return bool(colon) and tag != "latest" and bool(re.match(r"v?\d+\.\d+", tag))
