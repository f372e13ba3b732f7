"""What must stay the same between runs of a study: its spec (some fields may change), its data and its identity."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import yaml

from gitdist.data.dataset import DATASET_FORMAT
from gitdist.disk import write_atomic
from gitdist.errors import SpecError, StudyError, first_line
from gitdist.spec import StudySpec
from gitdist.spec.file import dump_study, parse_study
from gitdist.spec.paths import absolute_paths
from gitdist.store import content_key
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger


class Attributes(Protocol):
    """The attributes of a study that a ledger stores."""

    def get_attr(self, key: str) -> Any:
        """Return an attribute; None if it is not set."""

    def set_attr(self, key: str, value: Any) -> None:
        """Set an attribute."""


class _NoAttributes:
    def get_attr(self, key: str) -> Any:
        return None

    def set_attr(self, key: str, value: Any) -> None: ...


NO_LEDGER: Attributes = _NoAttributes()

_MAY_CHANGE = (
    "title",
    "data.path",  # what its files hold is settled by the fingerprint
    "generator.path",  # and that of the generator's file by the artifact's name
    "search.total",
    "resources",
    "sharing",
    "store",
    "tracking",
    "stream.window_mb",
    "stream.keep",
    "stream.lookahead",
    "generator.checkpoint_every",
)
_COPIES = "study_file"  # what the ledger remembers of study.yaml: its values; while it is replaced, old and new ones
_ABSENT = object()
_HEAD, _TAIL = "# The resolved study; its last line is '...'\n", "...\n"  # a file with the one alone is torn
_FORK = (
    "--fork NAME (for a campaign: --set name=NAME) starts another study that reuses the data set, the generator and "
    "whatever else of it is in the store"
)


def check_spec(paths: StudyPaths, spec: StudySpec, attributes: Attributes = NO_LEDGER) -> None:
    """Accept, of a study that was started before, only changes that leave results comparable; write nothing.

    Args:
        paths: the study's files.
        spec: the study as it is to be run.
        attributes: the ledger's; they replace a stored spec that was removed.

    Raises:
        StudyError: a field that determines results differs from the stored one, or the stored one cannot be read.
    """
    copies = _copies(paths, attributes)
    if not (paths.spec.exists() or copies):
        return
    stored = load_stored_spec(paths) if paths.spec.exists() else copies[-1]
    differences = _differences(stored.model_dump(by_alias=True), spec.model_dump(by_alias=True))
    forbidden = [difference for difference in differences if not _may_change(difference[0])]
    if forbidden:
        raise StudyError(_refusal(paths, forbidden))


def check_started(paths: StudyPaths, spec: StudySpec) -> None:
    """Apply ``refuse_edit`` and ``check_spec`` to a study whose ledger is not open; write nothing."""
    attributes, ledger = NO_LEDGER, None
    with suppress(StudyError):  # where it cannot be opened, the run itself says so
        line = load_stored_spec(paths) if paths.spec.exists() else spec
        if Ledger.exists(paths, line):
            ledger = Ledger.open(paths, line, read_only=True)
            attributes = ledger
    try:
        refuse_edit(paths, attributes)
        check_spec(paths, spec, attributes)
    finally:
        if ledger is not None:
            ledger.close()


def describe_edit(paths: StudyPaths, attributes: Attributes) -> str | None:
    """Return in one line how the stored spec differs from what the ledger remembers of it; None if it does not."""
    copies = _copies(paths, attributes)
    if not copies or not paths.spec.exists():
        return None
    stored = load_stored_spec(paths)
    if stored in copies:
        return None
    found = _differences(copies[-1].model_dump(by_alias=True), stored.model_dump(by_alias=True))
    changes = ", ".join(f"{field} is {_shown(new)} and was {_shown(old)}" for field, old, new in found)
    return f"{paths.spec} was edited since the study was run: {changes}"


def refuse_edit(paths: StudyPaths, attributes: Attributes) -> None:
    """Refuse a stored spec that is not the one that the study was run with last."""
    edit = describe_edit(paths, attributes)
    if edit is not None:
        raise StudyError(f"{edit}; put the old value back there, and change fields by --set FIELD=VALUE instead")


def settle_spec(paths: StudyPaths, spec: StudySpec, attributes: Attributes = NO_LEDGER) -> None:
    """Store the resolved spec, which ``check_spec`` accepts, and its values in the ledger.

    A driver that is killed in between leaves a file that the ledger knows.

    Raises:
        StudyError: as ``check_spec``, or the stored spec was edited.
    """
    refuse_edit(paths, attributes)
    check_spec(paths, spec, attributes)
    own = _is_own(paths, attributes)
    new = spec.model_dump(mode="json", by_alias=True)
    if own and attributes.get_attr(_COPIES) != [new]:
        old = [load_stored_spec(paths).model_dump(mode="json", by_alias=True)] if paths.spec.exists() else []
        attributes.set_attr(_COPIES, [*old, new])
    write_atomic(paths.spec, f"{_HEAD}{dump_study(spec)}{_TAIL}".encode())
    paths.push(paths.spec)
    if own and attributes.get_attr(_COPIES) != [new]:
        attributes.set_attr(_COPIES, [new])


def is_settled(paths: StudyPaths, spec: StudySpec) -> bool:
    """Tell whether the stored spec is this one, so that resuming the study by its name runs what ``spec`` says."""
    with suppress(StudyError):
        return paths.spec.exists() and load_stored_spec(paths) == spec
    return False


def load_stored_spec(paths: StudyPaths) -> StudySpec:
    """Return the spec that the study was started with; fields that it lacks have their defaults.

    Raises:
        StudyError: there is no such study, or its stored spec is damaged.
    """
    if not paths.spec.exists():
        raise StudyError(
            f"no study '{paths.name}' in {paths.results}; `gitdist run` starts one, --results names another place"
        )
    try:
        spec = parse_study(_read_whole(paths), str(paths.spec))
    except (SpecError, OSError, ValueError, yaml.YAMLError) as error:
        told = first_line(error).removeprefix(f"{paths.spec}: ")
        raise StudyError(
            f"{paths.spec} must hold the study as it was started, but it is damaged ({told}); put it back from a copy, "
            "or remove it and run the very study file that the study was started with"
        ) from None
    if spec.name != paths.name:
        raise StudyError(
            f"{paths.spec} must be of study '{paths.name}', but it is of '{spec.name}'; give the directory that name "
            "again"
        )
    return spec


def fork(spec: StudySpec, name: str) -> StudySpec:
    """Return the same study under another name: a new one, for which the store has what the two share."""
    if name == spec.name:
        raise SpecError(f"--fork takes the name of another study, but '{name}' is this study's own")
    return parse_study({**spec.model_dump(mode="json", by_alias=True), "name": name}, "--fork")


def has_current_splits(attributes: Attributes) -> bool:
    """Tell whether a study is new or its data set was split by this version's rules."""
    return attributes.get_attr("data") is None or attributes.get_attr("data_format") == DATASET_FORMAT


def outdated_splits(paths: StudyPaths) -> StudyError:
    """Return the error for a study of which this version cannot train more."""
    return StudyError(
        f"study '{paths.name}' in {paths.results} was begun by an earlier version of gitdist, which split data sets "
        "differently, so this version cannot train the rest of it; to start a new study from it: gitdist run "
        f"{paths.spec} --fork NAME --results {paths.results} (status, report and ui still show the old one)"
    )


def settle_data(paths: StudyPaths, attributes: Attributes, fingerprint: str) -> None:
    """Record the data set's format and fingerprint at the first run; later accept no other fingerprint.

    Raises:
        StudyError: the study was started with other data.
    """
    known = attributes.get_attr("data")
    if known is None:
        attributes.set_attr("data_format", DATASET_FORMAT)
        attributes.set_attr("data", fingerprint)
    elif known != fingerprint:
        raise StudyError(
            f"study '{paths.name}' in {paths.results} was started with the data set {known}, but its files now give "
            f"{fingerprint}; put back the files as they were (data.path may name another folder with the same files), "
            f"or start anew: {_FORK}"
        )


def settle_identity(paths: StudyPaths, attributes: Attributes) -> str:
    """Return the name that no other study has, the same in the study's directory and in its ledger.

    The directory has it first, so a ledger that has one while the directory has none was there before the directory:
    a ledger inside the directory is the study's own all the same, one elsewhere belongs to another directory.

    Raises:
        StudyError: ledger and directory belong to different studies, or the ledger has lost the directory's trials.
    """
    here = _read_identity(paths)
    there = attributes.get_attr("identity")
    if there is not None and there != here and not (here is None and _ledger_is_inside(paths)):
        raise StudyError(
            f"the ledger already has a study '{paths.name}', which belongs to another results directory than "
            f"{paths.results}; name the right one with --results, or give this study another name with --fork NAME"
        )
    if there is None and here is not None and (paths.study / "trials").exists():
        raise StudyError(
            f"{paths.study} has trials that the ledger of study '{paths.name}' does not know; put the ledger back, or "
            "remove that directory to begin anew"
        )
    identity: str = there or here or uuid.uuid4().hex
    if here is None:
        write_atomic(paths.identity, identity.encode())
        paths.push(paths.identity)
    if there is None:
        attributes.set_attr("identity", identity)
    return identity


def determining(spec: StudySpec) -> dict[str, Any]:
    """Return, as JSON values, the fields of a study that determine its results: those that must not change."""
    return _without_changeable(spec.model_dump(mode="json", by_alias=True, exclude={"ledger"}))


def study_tags(spec: StudySpec, fingerprint: str) -> dict[str, str]:
    """Return the tags of all MLflow runs of a study: hashes of its spec and of its data."""
    return {"gitdist.spec": content_key("study", determining(spec)), "gitdist.data": fingerprint}


def _copies(paths: StudyPaths, attributes: Attributes) -> list[StudySpec]:
    """Return the specs that the study's own ledger remembers; none where it is another study's, or of gitdist 0.5."""
    remembered = attributes.get_attr(_COPIES) if _is_own(paths, attributes) else None
    with suppress(SpecError):  # of an earlier version whose rules were others
        return [parse_study(_renewed(values), "the ledger") for values in remembered or []]
    return []


def _is_own(paths: StudyPaths, attributes: Attributes) -> bool:
    """Tell whether the ledger is this directory's, as far as both say; ``settle_identity`` has the last word."""
    return attributes.get_attr("identity") in (None, _read_identity(paths))


def _read_identity(paths: StudyPaths) -> str | None:
    return (paths.identity.read_text(errors="replace").strip() or None) if paths.identity.exists() else None


def _without_changeable(values: dict[str, Any], field: str = "") -> dict[str, Any]:
    kept = {}
    for name, value in values.items():
        path = f"{field}.{name}" if field else name
        if not _may_change(path):
            kept[name] = _without_changeable(value, path) if isinstance(value, dict) else value
    return kept


def _read_whole(paths: StudyPaths) -> dict[str, Any]:
    text = paths.spec.read_text()
    if text.startswith(_HEAD) and not text.endswith(_TAIL):
        raise ValueError("its end is missing")
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise ValueError("it holds no fields")
    return _renewed(values)


def _renewed(values: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier gitdist stored as it is stored now: of fields that may change, two have moved."""
    stream, resources = dict(values.get("stream") or {}), dict(values.get("resources") or {})
    if "servers" in stream:
        resources["servers"] = stream.pop("servers")
    if "max_concurrent" in resources and resources["max_concurrent"] is None:
        resources["max_concurrent"] = "auto"
    renewed = {**values, "stream": stream, "resources": resources}
    return dict(absolute_paths(renewed, Path.cwd()))  # gitdist 0.5 stored relative paths


def _ledger_is_inside(paths: StudyPaths) -> bool:
    if not paths.spec.exists():
        return paths.ledger.exists() or paths.journal.exists()
    return "://" not in load_stored_spec(paths).ledger


def _may_change(field: str) -> bool:
    return any(f"{field}.".startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def _refusal(paths: StudyPaths, forbidden: list[tuple[str, Any, Any]]) -> str:
    (field, old, new), *others = forbidden
    names = ", ".join(name for name, _, _ in others)
    more = f" (and {len(others)} more: {names})" if others else ""
    return (
        f"{field} must stay what study '{paths.name}' was started with ({paths.spec}), {_shown(old)}, but now it is "
        f"{_shown(new)}{more}; {_FORK}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: inner for name, inner in value.items() if inner not in (None, {})}
    return "absent" if value is _ABSENT else repr(value)


def _differences(old: Any, new: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path and both values of every field that differs, as deep as the two have the same shape."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        if old.get("kind") != new.get("kind"):  # the other fields of another kind are not the same fields
            names = [name for name in names if name in old and name in new]
        pairs = [(str(name), old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in names]
    elif _are_tables(old, new):
        pairs = [(str(row), before, after) for row, (before, after) in enumerate(zip(old, new, strict=True))]
    else:
        if old != new:
            yield field, old, new
        return
    for name, before, after in pairs:
        yield from _differences(before, after, f"{field}.{name}" if field else name)


def _are_tables(old: Any, new: Any) -> bool:
    """Whether both are lists of as many mappings: other lists are told whole."""
    return all(isinstance(part, list | tuple) for part in (old, new)) and (
        len(old) == len(new) and all(isinstance(row, dict) for row in (*old, *new))
    )
