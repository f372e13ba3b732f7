"""The whole examination: this machine, the services of a study and, where one is named, the cluster."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gitdist.doctor.exposure import check_listening, check_token_file
from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.hardware import check_asked_cards, check_cards, check_memory
from gitdist.doctor.machine import (
    DirectoryReport,
    MachineReport,
    describe,
    examine_directory,
    remove_token,
    type_of_disk,
)
from gitdist.doctor.patience import OutOfPatience, within
from gitdist.doctor.results import check_directory, check_sqlite
from gitdist.doctor.room import check_room
from gitdist.doctor.services import check_ledger, check_store, check_tracking, check_tracking_exposure, local_port
from gitdist.doctor.versions import check_own_versions
from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.study.checks import check_services
from gitdist.study.files.layout import StudyPaths, shared_store
from gitdist.study.files.results import ObjectStoreResults
from gitdist.study.monitoring.mlflow.uri import database_file, tracking_uri
from gitdist.study.scheduling.packing import Node

_DESCRIBE_S = 60.0
_DISK_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is examined.

    Attributes:
        results: the results directory, absolute, or the results on an object store.
        address: the cluster; None = this machine alone.
        specs: the study, or the studies of a campaign.
    """

    results: Path | ObjectStoreResults
    address: str | None = None
    specs: tuple[StudySpec, ...] = ()


@dataclass
class _Stores:
    findings: list[Finding] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)


def examine(request: Request) -> list[Finding]:
    """Examine this machine, the services and the cluster; each finding is there once."""
    uris, results = _tracking_uris(request), request.results
    findings, here = _examine_machine(uris)
    with ExitStack() as stack:
        token = ""
        if isinstance(results, Path):
            token, directory = stack.enter_context(_token_in(results))
            findings += check_directory(HERE, results, directory)
        stores = stack.enter_context(_tokens_in_stores(request))
        findings += stores.findings
        findings += [check for uri in uris for check in _examine_tracking(uri)]
        findings += [check for spec in request.specs for check in _examine_ledger(spec, results)]
        if request.address is None:
            findings += _examine_room(request.specs, here)
        else:
            from gitdist.doctor.cluster import ClusterQuestion, examine_cluster  # and Ray, which nothing else needs

            place = results if isinstance(results, Path) else results.uri
            question = ClusterQuestion(results=place, token=token, here=here, stores=stores.tokens, specs=request.specs)
            findings += examine_cluster(request.address, question)
    return list(dict.fromkeys(findings))


def _tracking_uris(request: Request) -> list[str]:
    results = request.results
    paths = StudyPaths.at(results, "study")
    uris = []
    for configured in [spec.tracking.uri for spec in request.specs] or [None]:
        with suppress(SpecError):  # told by ``_examine_ledger``
            uris.append(tracking_uri(paths, configured))
    return list(dict.fromkeys(uris))


def _examine_tracking(uri: str) -> Iterator[Finding]:
    yield check_tracking(uri)
    yield from check_tracking_exposure(uri)
    file = database_file(uri)
    if file is not None:
        yield from check_sqlite("MLflow", file.parent, _disk(file.parent))


def _examine_ledger(spec: StudySpec, results: Path | ObjectStoreResults) -> Iterator[Finding]:
    try:
        check_services(spec, StudyPaths.at(results, spec.name).results)
    except SpecError as error:
        yield Finding.of_error("services", HERE, error)
        return
    yield check_ledger(spec.ledger)
    if spec.ledger == "sqlite" and isinstance(results, Path):
        yield from check_sqlite("ledger", results, _disk(results))


def _disk(path: Path) -> str | None:
    with suppress(OutOfPatience, OSError):
        return within(_DISK_S, lambda: type_of_disk(path))
    return None


def _examine_machine(uris: list[str]) -> tuple[list[Finding], MachineReport | None]:
    watched = {port: "MLflow server" for port in map(local_port, uris) if port is not None}
    try:
        here = within(_DESCRIBE_S, lambda: describe(watched))
    except OutOfPatience as error:
        return [Finding("machine", HERE, "problem", str(error), "look for a disk or a driver that hangs (dmesg)")], None
    checks = [check_own_versions(here), check_cards(HERE, here, None), check_memory(HERE, here, None)]
    return [*checks, *check_listening(HERE, here), *check_token_file(HERE, here)], here


def _examine_room(specs: tuple[StudySpec, ...], here: MachineReport | None) -> Iterator[Finding]:
    """Judge the Ray that a study would start here."""
    if here is None or not specs:
        return
    from gitdist.study.cluster.connect import local_cpus  # and Ray with it

    for spec in specs:
        num_servers = spec.resources.servers if spec.sharing.stream else 0
        cards = [1.0] * len(here.cards)
        yield from check_asked_cards(HERE, spec, len(cards))
        yield check_room(HERE, [Node(HERE, local_cpus(spec.resources, num_servers), cards)], spec)


@contextmanager
def _token_in(results: Path) -> Iterator[tuple[str, DirectoryReport]]:
    """Leave a token in the results directory for the time being, and no directory that was not there before."""
    token = f".doctor.{secrets.token_hex(8)}"
    made: list[Path] = []

    def leave() -> DirectoryReport:
        try:
            made.extend(path for path in (results, *results.parents) if not path.exists())
            results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return DirectoryReport(trouble=f"{error.filename}: {error.strerror}")
        return examine_directory(results, None, token)

    def clean() -> None:
        remove_token(results, token)
        for path in made:
            with suppress(OSError):  # others use it meanwhile
                path.rmdir()

    try:
        yield token, within(_DISK_S, leave)
    except OutOfPatience as error:
        yield token, DirectoryReport(trouble=f"{results}: {error}")
    finally:
        with suppress(OutOfPatience):
            within(_DISK_S, clean)


@contextmanager
def _tokens_in_stores(request: Request) -> Iterator[_Stores]:
    """Leave a token in the results on an object store and in each shared place of the store for the time being."""
    stores, cleaners = _Stores(), []
    results = None if isinstance(request.results, Path) else request.results.uri
    uris = (results, *map(shared_store, request.specs))
    for uri in dict.fromkeys(uri for uri in uris if uri is not None):
        token = f"doctor.{secrets.token_hex(8)}"
        found, clean = check_store(uri, token, results=uri == results)
        stores.findings.append(found)
        cleaners.append(clean)
        if found.state == "ok":
            stores.tokens[uri] = token
    try:
        yield stores
    finally:
        for clean in cleaners:
            with suppress(Exception):  # what stays is small, and told by the next one
                clean()
