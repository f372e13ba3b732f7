"""Checks what must stay the same between runs of a study: its spec (except some fields), data and identity."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from gitdist.data import DATASET_FORMAT
from gitdist.disk import write_atomic
from gitdist.errors import SpecError, StudyError, first_line
from gitdist.spec import StudySpec
from gitdist.spec.file import dump_study, parse_study
from gitdist.spec.paths import absolute_paths
from gitdist.store import content_key
from gitdist.study.files.attribution import read_identity
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.ledger.ledger import Ledger

if TYPE_CHECKING:  # imports torch
    from gitdist.networks.pretrained import WeightsFile

StudyWeights = Mapping[str, "WeightsFile"]
"""The pretrained weights of a study's trials, by ``weights_source``."""


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
    *("data.path", "data.train", "data.test", "data.table", "data.classes"),  # the fingerprint identifies their content
    "generator.path",  # the artifact's name identifies the content of its file
    *("search.total", "search.max_hours", "search.patience", "search.target"),
    "resources",
    "sharing",
    "store",
    "tracking",
    "stream.window_mb",
    "stream.keep",
    "stream.lookahead",
    "generator.checkpoint_every",
)
_COPIES = "study_file"  # attribute with the values of study.yaml; while the file is replaced, old and new values
_ABSENT = object()
_HEAD, _TAIL = "# The resolved study; its last line is '...'\n", "...\n"  # a head without the tail: the file is torn


def check_spec(paths: StudyPaths, spec: StudySpec, attributes: Attributes = NO_LEDGER) -> None:
    """Refuse changes to a started study after which its results would not be comparable; write nothing.

    Args:
        paths: the study's files.
        spec: the spec that the study is about to run with.
        attributes: the ledger's; they have a copy of the spec in case its file was removed.

    Raises:
        StudyError: a field that determines results differs from the stored one, or the stored one cannot be read.
    """
    copies = _ledger_copies(paths, attributes)
    if not (paths.spec.exists() or copies):
        return
    stored = load_stored_spec(paths) if paths.spec.exists() else copies[-1]
    differences = _differences(stored.model_dump(by_alias=True), spec.model_dump(by_alias=True))
    forbidden = [difference for difference in differences if not _may_change(*difference)]
    if forbidden:
        raise StudyError(_describe_refusal(paths, forbidden), remedy="fork")


def check_started(paths: StudyPaths, spec: StudySpec) -> None:
    """Apply all checks of a started study's spec, identity and trials while its ledger is not open; write nothing."""
    attributes, ledger = NO_LEDGER, None
    with suppress(StudyError):  # if it cannot be opened, the run reports that
        stored = load_stored_spec(paths) if paths.spec.exists() else spec
        if Ledger.exists(paths, stored):
            ledger = Ledger.open(paths, stored, read_only=True)
            attributes = ledger
    try:
        refuse_edit(paths, attributes)
        check_spec(paths, spec, attributes)
        if ledger is not None:
            check_identity(paths, ledger)
            check_recorded_trials(paths, ledger)
    finally:
        if ledger is not None:
            ledger.close()


def describe_edit(paths: StudyPaths, attributes: Attributes) -> str | None:
    """Return in one line how the stored spec differs from the ledger's copies of it; None if it does not."""
    copies = _ledger_copies(paths, attributes)
    if not copies or not paths.spec.exists():
        return None
    stored = load_stored_spec(paths)
    if stored in copies:
        return None
    differences = _differences(copies[-1].model_dump(by_alias=True), stored.model_dump(by_alias=True))
    changes = ", ".join(f"{field} is {_format(new)} and was {_format(old)}" for field, old, new in differences)
    return f"{paths.spec} was edited since the study was run: {changes}"


def refuse_edit(paths: StudyPaths, attributes: Attributes) -> None:
    """Refuse a stored spec that was edited since the study was last run."""
    edit = describe_edit(paths, attributes)
    if edit is not None:
        raise StudyError(edit, remedy="change_field")


def store_spec(paths: StudyPaths, spec: StudySpec, attributes: Attributes = NO_LEDGER) -> None:
    """Check the resolved spec, then write it to its file and its values to the ledger.

    If a driver is killed in between, the ledger has a copy of whichever spec the file contains.

    Raises:
        StudyError: as ``check_spec``, or the stored spec was edited.
    """
    refuse_edit(paths, attributes)
    check_spec(paths, spec, attributes)
    owns_ledger = _owns_ledger(paths, attributes)
    new = spec.model_dump(mode="json", by_alias=True)
    if owns_ledger and attributes.get_attr(_COPIES) != [new]:
        old = [load_stored_spec(paths).model_dump(mode="json", by_alias=True)] if paths.spec.exists() else []
        attributes.set_attr(_COPIES, [*old, new])
    write_atomic(paths.spec, f"{_HEAD}{dump_study(spec)}{_TAIL}".encode())
    paths.push(paths.spec)
    if owns_ledger and attributes.get_attr(_COPIES) != [new]:
        attributes.set_attr(_COPIES, [new])


def is_spec_stored(paths: StudyPaths, spec: StudySpec) -> bool:
    """Return whether the stored spec equals ``spec``, so that resuming the study by its name runs ``spec``."""
    with suppress(StudyError):
        return paths.spec.exists() and load_stored_spec(paths) == spec
    return False


def load_stored_spec(paths: StudyPaths) -> StudySpec:
    """Return the spec that the study was started with; fields that it lacks have their defaults.

    Raises:
        StudyError: there is no such study, or its stored spec is damaged.
    """
    if not paths.spec.exists():
        if paths.ledger.exists() or paths.journal.exists() or paths.stored_trials():
            raise StudyError(
                f"{paths.spec} is missing; run the study file that the study was started with, which writes it again"
            )
        raise StudyError(f"no study '{paths.name}' in {paths.results}", remedy="find_study")
    try:
        spec = parse_study(_read_values(paths), str(paths.spec))
    except (SpecError, OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = first_line(error).removeprefix(f"{paths.spec}: ")
        raise StudyError(
            f"{paths.spec} must contain the study as it was started, but it is damaged or of another version "
            f"({reason}); restore it from a copy, or remove it and run the same study file that the study was started "
            "with"
        ) from None
    if spec.name != paths.name:
        raise StudyError(
            f"{paths.spec} must be of study '{paths.name}', but it is of '{spec.name}'; rename the directory back"
        )
    return spec


def fork(spec: StudySpec, name: str) -> StudySpec:
    """Return the same study under another name; it reuses from the store all artifacts that both studies need."""
    if name == spec.name:
        raise SpecError(f"a fork needs a new name, but '{name}' is the name of this study")
    return parse_study({**spec.model_dump(mode="json", by_alias=True), "name": name}, "fork")


def has_current_splits(attributes: Attributes) -> bool:
    """Return whether a study is new, or this version splits its data set in the same way."""
    return attributes.get_attr("data") is None or attributes.get_attr("data_format") == DATASET_FORMAT


def outdated_splits_error(paths: StudyPaths) -> StudyError:
    """Return the error for a study that an earlier version split differently, so that it cannot continue."""
    return StudyError(
        f"study '{paths.name}' in {paths.results} was started by an earlier version of gitdist, which split data sets "
        "differently, so this version cannot continue it",
        remedy="fork_stored",
        spec=paths.spec,
        results=paths.results,
    )


def check_or_record_data(paths: StudyPaths, attributes: Attributes, fingerprint: str) -> None:
    """Record the data set's format and fingerprint at the first run; refuse another fingerprint later.

    Raises:
        StudyError: the study was started with other data.
    """
    known = attributes.get_attr("data")
    if known is None:
        attributes.set_attr("data_format", DATASET_FORMAT)
        attributes.set_attr("data", fingerprint)
    elif known != fingerprint:
        raise StudyError(
            f"study '{paths.name}' in {paths.results} was started with the data set {known}, but its files now have "
            f"{fingerprint}; restore the files (data.path may name another folder with the same files), or start a new "
            "study",
            remedy="fork",
        )


def check_or_record_weights(attributes: Attributes, weights: StudyWeights) -> None:
    """Record the content of the weights at the first run; refuse other content later as ``check_weights`` does."""
    check_weights(attributes, weights)
    recorded = attributes.get_attr("weights") or {}
    found = {source: file.digest for source, file in weights.items()}
    if found.keys() - recorded.keys():
        attributes.set_attr("weights", {**recorded, **found})


def check_weights(attributes: Attributes, weights: StudyWeights) -> None:
    """Refuse other content of the weights than recorded.

    Raises:
        StudyError: the study was started with other weights.
    """
    recorded = attributes.get_attr("weights") or {}
    for source, digest in ((source, file.digest) for source, file in weights.items()):
        if recorded.get(source, digest) != digest:
            raise StudyError(
                f"trial.pretrained: the study was started with the weights {recorded[source]} of {source}, but they "
                f"are now {digest}; restore the former ones, or start another study",
                remedy="fork",
            )


def ensure_identity(paths: StudyPaths, attributes: Attributes) -> str:
    """Return the unique ID of the study, which its directory and its ledger both store; create it at the first run.

    It is written to the directory first. So if only the ledger has one, the ledger is older than the directory, or the
    directory has lost its own: a ledger inside the directory still belongs to the study, a ledger elsewhere belongs to
    another results directory.

    Raises:
        StudyError: ledger and directory belong to different studies, or the ledger has lost the directory's trials.
    """
    check_identity(paths, attributes)
    directory_id = read_identity(paths)
    ledger_id = attributes.get_attr("identity")
    identity: str = ledger_id or directory_id or uuid.uuid4().hex
    if directory_id is None:
        write_atomic(paths.identity, identity.encode())
        paths.push(paths.identity)
    if ledger_id is None:
        attributes.set_attr("identity", identity)
    return identity


def check_identity(paths: StudyPaths, attributes: Attributes) -> None:
    """Refuse what ``ensure_identity`` refuses; write nothing."""
    directory_id, ledger_id = read_identity(paths), attributes.get_attr("identity")
    is_inside = _ledger_is_inside(paths)
    if None not in (ledger_id, directory_id) and ledger_id != directory_id and is_inside:
        raise StudyError(
            f"{paths.identity} must contain the study's ID in its ledger, {ledger_id}, but it is {directory_id}: one "
            "of them was damaged or replaced; restore it, or if the ledger is the right one, remove that file"
        )
    if ledger_id is not None and ledger_id != directory_id and not is_inside:
        raise StudyError(
            f"the ledger already has a study '{paths.name}', which belongs to another results directory, not "
            f"{paths.results}",
            remedy="fork_or_find",
        )
    if ledger_id is None and paths.stored_trials():
        raise _lost_trials_error(paths, paths.stored_trials()[0])


def check_ledger_exists(paths: StudyPaths, spec: StudySpec) -> None:
    """Refuse a study whose directory has trials but no ledger; create nothing.

    Raises:
        StudyError: the ledger is missing.
    """
    if paths.stored_trials() and not Ledger.exists(paths, spec):
        raise _lost_trials_error(paths, paths.stored_trials()[0])


def check_recorded_trials(paths: StudyPaths, ledger: Ledger) -> None:
    """Refuse a ledger that has lost trials: new trials would have their numbers and continue from their checkpoints.

    Raises:
        StudyError: the directory has a trial that the ledger lacks.
    """
    if lost := unrecorded_trials(paths, ledger):
        raise _lost_trials_error(paths, lost[0])


def unrecorded_trials(paths: StudyPaths, ledger: Ledger) -> list[TrialId]:
    """Return the trials that have a directory, but are not in the ledger."""
    num_recorded = len(ledger.trials())
    return [trial for trial in paths.stored_trials() if (trial.number or 0) >= num_recorded]


def result_fields(spec: StudySpec) -> dict[str, Any]:
    """Return, as JSON values, the fields of a study that determine its results and must not change."""
    return _without_changeable(spec.model_dump(mode="json", by_alias=True, exclude={"ledger"}))


def study_tags(spec: StudySpec, fingerprint: str) -> dict[str, str]:
    """Return the tags of all MLflow runs of a study: hashes of its spec and of its data."""
    return {"gitdist.spec": content_key("study", result_fields(spec)), "gitdist.data": fingerprint}


def _ledger_copies(paths: StudyPaths, attributes: Attributes) -> list[StudySpec]:
    """Return the ledger's copies of the spec; none if the ledger is another study's, or of gitdist 0.5."""
    copies = attributes.get_attr(_COPIES) if _owns_ledger(paths, attributes) else None
    with suppress(SpecError, TypeError, ValueError):  # an earlier version had other rules
        return [parse_study(_migrate(values), "the ledger") for values in copies or []]
    return []


def _owns_ledger(paths: StudyPaths, attributes: Attributes) -> bool:
    """Return whether ledger and directory have no different IDs; ``ensure_identity`` makes the final check."""
    return attributes.get_attr("identity") in (None, read_identity(paths))


def _lost_trials_error(paths: StudyPaths, trial: TrialId) -> StudyError:
    return StudyError(
        f"{paths.trial(trial)} is of a trial that the ledger of study '{paths.name}' lacks; restore the ledger, or "
        f"move {paths.study} away to start over"
    )


def _without_changeable(values: dict[str, Any], field: str = "") -> dict[str, Any]:
    fixed = {}
    for name, value in values.items():
        path = f"{field}.{name}" if field else name
        if not _may_change(path, value):
            fixed[name] = _without_changeable(value, path) if isinstance(value, dict) else value
    return fixed


def _read_values(paths: StudyPaths) -> dict[str, Any]:
    text = paths.spec.read_text()
    if text.startswith(_HEAD) and not text.endswith(_TAIL):
        raise ValueError("its end is missing")
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise ValueError("it has no fields")
    return _migrate(values)


def _migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Return a spec of an earlier gitdist in the current form: two fields have moved."""
    stream, resources = dict(values.get("stream") or {}), dict(values.get("resources") or {})
    if "servers" in stream:
        resources["servers"] = stream.pop("servers")
    if "max_concurrent" in resources and resources["max_concurrent"] is None:
        resources["max_concurrent"] = "auto"
    migrated = {**values, "stream": stream, "resources": resources}
    return dict(absolute_paths(migrated, Path.cwd()))  # gitdist 0.5 stored relative paths


def _ledger_is_inside(paths: StudyPaths) -> bool:
    if not paths.spec.exists():
        return paths.ledger.exists() or paths.journal.exists()
    return "://" not in load_stored_spec(paths).ledger


def _may_change(field: str, *values: Any) -> bool:
    if field == "data.validation":  # a share, or a file
        return all(isinstance(value, str) for value in values)
    return any(f"{field}.".startswith(f"{allowed}.") for allowed in _MAY_CHANGE)


def _describe_refusal(paths: StudyPaths, forbidden: list[tuple[str, Any, Any]]) -> str:
    (field, old, new), *others = forbidden
    names = ", ".join(name for name, _, _ in others)
    more = f" (and {len(others)} more: {names})" if others else ""
    return (
        f"{field} must stay what study '{paths.name}' was started with ({paths.spec}), {_format(old)}, but now it is "
        f"{_format(new)}{more}"
    )


def _format(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: inner for name, inner in value.items() if inner not in (None, {})}
    return "absent" if value is _ABSENT else repr(value)


def _differences(old: Any, new: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old and new value of every field that differs; compare nested values of the same shape one by one."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        if old.get("kind") != new.get("kind"):  # fields of one kind do not exist in another kind
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
    """Return whether both are lists of equally many mappings; other lists are compared as a whole."""
    return all(isinstance(values, list | tuple) for values in (old, new)) and (
        len(old) == len(new) and all(isinstance(row, dict) for row in (*old, *new))
    )
