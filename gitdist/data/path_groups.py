"""Names the group of each image by its path: the folder between class and image, or a match of a regular expression.

This module imports little: regular expressions are matched in a process that imports it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.errors import DataError


def name_groups(files: Sequence[Path], root: Path, depth: int, rule: str) -> Mapping[Path, str]:
    """Return the name of each file's group.

    Args:
        files: the images.
        root: the folder of the data set.
        depth: the index of the class in a path relative to ``root``.
        rule: "folder", or a regular expression on the relative path, whose first group (else the match) is the name.

    Raises:
        DataError: a path does not fit the rule.
    """
    relative = [file.relative_to(root).parts for file in files]
    if rule == "folder":
        for file, parts in zip(files, relative, strict=True):
            if len(parts) <= depth + 2:
                raise DataError(
                    f"with data.group: folder images must lie in CLASS/GROUP/, but {file} does not; move it"
                )
        return {file: parts[depth + 1] for file, parts in zip(files, relative, strict=True)}
    paths = ["/".join(parts) for parts in relative]
    try:
        # Matching may take for ever, and while it runs, no other thread of its process does.
        with ChildProcess(__name__) as child:
            names = child.call(f"data.group {rule!r} must match the path of each image", _match_all, rule, paths)
    except (ChildEndedError, OSError) as error:
        raise DataError(f"data.group {rule!r} must be matched in a process of its own, but {error}") from error
    for path, name in zip(paths, names, strict=True):
        if name is None:
            raise DataError(
                f"data.group must match every path below {root}, but {rule!r} does not match {path}; correct it"
            )
    return dict(zip(files, names, strict=True))


def _match_all(rule: str, paths: Sequence[str]) -> list[str | None]:
    return [_match(rule, path) for path in paths]


def _match(rule: str, path: str) -> str | None:
    found = re.search(rule, path)
    return found and next((part for part in found.groups() if part is not None), found[0])
