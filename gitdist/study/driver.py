"""One driver a study, and a spec that stays the same from its first run to its last."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.spec.file import dump_study, parse_study
from gitdist.store import write_atomic
from gitdist.study.paths import StudyPaths

_MAY_CHANGE = (
    "search.total",
    "resources",
    "tracking",
    "stream.servers",
    "stream.window_mb",
    "stream.lookahead",
    "generator.checkpoint_every",
)


@contextmanager
def sole_driver(paths: StudyPaths) -> Iterator[None]:
    """Hold the study for this process; the lock ends with the process, however it ends.

    Raises:
        StudyError: another process holds it.
    """
    with open(paths.lock, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(
                f"study '{paths.name}' in {paths.results} is being run by another process; wait for it or stop it first"
            ) from None
        yield


def is_driven(paths: StudyPaths) -> bool:
    """Tell whether a process of this machine runs the study now."""
    try:
        with sole_driver(paths):
            return False
    except StudyError:
        return True


def settle_spec(paths: StudyPaths, spec: StudySpec) -> None:
    """Store the resolved spec at the first run; later accept only changes that leave results comparable.

    Raises:
        StudyError: a field that determines results differs from the stored one.
    """
    if paths.spec.exists():
        stored = parse_study(yaml.safe_load(paths.spec.read_text()), str(paths.spec))
        for field, old, new in _differences(stored.model_dump(by_alias=True), spec.model_dump(by_alias=True)):
            if not field.startswith(_MAY_CHANGE):
                raise StudyError(
                    f"{field} must stay what study '{spec.name}' in {paths.results} was started with, {old!r}, but "
                    f"now it is {new!r}; give the study a new name to start another"
                )
    write_atomic(paths.spec, dump_study(spec).encode())


def load_stored_spec(paths: StudyPaths) -> StudySpec:
    """Return the spec that the study was started with.

    Raises:
        StudyError: there is no such study.
    """
    if not paths.spec.exists():
        raise StudyError(
            f"no study '{paths.name}' in {paths.results}; `gitdist run` starts one, --results names another place"
        )
    return parse_study(yaml.safe_load(paths.spec.read_text()), str(paths.spec))


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}", before, after
