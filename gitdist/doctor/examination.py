"""The whole examination: this machine, the services of a study and, where one is named, the cluster."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gitdist.doctor.exposure import check_listening, check_token_file
from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.hardware import check_asked_cards, check_cards, check_memory
from gitdist.doctor.machine import DirectoryReport, MachineReport, describe, examine_directory, remove_token
from gitdist.doctor.patience import OutOfPatience, within
from gitdist.doctor.results import check_directory, check_files_on_network
from gitdist.doctor.room import check_room
from gitdist.doctor.services import check_ledger, check_store, check_tracking, check_tracking_exposure, local_port
from gitdist.doctor.versions import check_own_versions
from gitdist.spec import StudySpec
from gitdist.study.paths import StudyPaths, shared_place
from gitdist.study.placement import Node
from gitdist.study.tracking.place import tracking_uri

_DESCRIBE_S = 60.0
_DISK_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is examined.

    Attributes:
        results: the results directory, absolute.
        address: the cluster; None = this machine alone.
        specs: the study, or the studies of a campaign.
    """

    results: Path
    address: str | None = None
    specs: tuple[StudySpec, ...] = ()


@dataclass
class _Stores:
    findings: list[Finding] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)


def examine(request: Request) -> list[Finding]:
    """Examine this machine, the services and the cluster; each finding is there once."""
    uris = _tracking_uris(request)
    findings, here = _examine_machine(uris)
    with _token_in(request.results) as (token, directory), _tokens_in_stores(request.specs) as stores:
        findings += check_directory(HERE, request.results, directory)
        findings += [check for uri in uris for check in (check_tracking(uri), *check_tracking_exposure(uri))]
        for spec in request.specs:
            findings.append(check_ledger(spec.ledger))
            findings += check_files_on_network(request.results, directory, spec.ledger)
        findings += stores.findings
        if request.address is None:
            findings += _examine_room(request.specs, here)
        else:
            from gitdist.doctor.cluster import ClusterQuestion, examine_cluster  # and Ray, which nothing else needs

            question = ClusterQuestion(
                results=request.results, token=token, here=here, stores=stores.tokens, specs=request.specs
            )
            findings += examine_cluster(request.address, question)
    return list(dict.fromkeys(findings))


def _tracking_uris(request: Request) -> list[str]:
    paths = StudyPaths(request.results, "study")
    configured = [spec.tracking.uri for spec in request.specs] or [None]
    return list(dict.fromkeys(tracking_uri(paths, uri) for uri in configured))


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
    from gitdist.study.cluster import local_cpus  # and Ray with it

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
def _tokens_in_stores(specs: tuple[StudySpec, ...]) -> Iterator[_Stores]:
    """Leave a token in each shared place of the store for the time being."""
    stores, cleaners = _Stores(), []
    for uri in dict.fromkeys(uri for uri in map(shared_place, specs) if uri is not None):
        token = f"doctor.{secrets.token_hex(8)}"
        found, clean = check_store(uri, token)
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
