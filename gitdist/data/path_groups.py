"""Names the group of each image by its path: the folder between class and image, or a match of a regular expression.

This module imports little: regular expressions are matched in a process that imports it.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.errors import DataError


def name_groups(files: Sequence[Path], root: Path, depth: int, rule: str) -> Sequence[str]:
    """Return the name of each file's group; the images lie in folders of classes.

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
        misplaced = next((file for file, parts in zip(files, relative, strict=True) if len(parts) <= depth + 2), None)
        if misplaced is not None:
            raise DataError(
                f"with data.group: folder images must lie in CLASS/GROUP/, but {misplaced} does not; move it"
            )
        return [parts[depth + 1] for parts in relative]
    return match_groups(["/".join(parts) for parts in relative], root, rule)


def match_groups(paths: Sequence[str], root: Path, rule: str) -> Sequence[str]:
    """Return the name of each path's group by a regular expression.

    Args:
        paths: of the images, relative to ``root``.
        root: the folder of the data set.
        rule: its first group, else the whole match, is the name.

    Raises:
        DataError: a path does not match.
    """
    try:
        # Matching may never end, and while it runs, no other thread of its process does.
        with ChildProcess(__name__) as child:
            names: list[str | None] = child.call(
                f"data.group {rule!r} must match the path of each image", _match_all, rule, paths
            )
    except (ChildEndedError, OSError) as error:
        raise DataError(f"data.group {rule!r} must be matched in a process of its own, but {error}") from error
    if None in names:
        path = paths[names.index(None)]
        raise DataError(
            f"data.group must match every path below {root}, but {rule!r} does not match {path}; correct it"
        )
    return [name for name in names if name is not None]


def _match_all(rule: str, paths: Sequence[str]) -> list[str | None]:
    matches = [re.search(rule, path) for path in paths]
    return [match and next((part for part in match.groups() if part is not None), match[0]) for match in matches]
