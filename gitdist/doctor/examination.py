"""The whole examination: this machine, the services of a study and, if one is named, the cluster."""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from gitdist.doctor.checks import check_capacity, check_directory, check_machine, check_sqlite, check_versions
from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.machine import DirectoryReport, MachineReport, describe_directory, describe_machine, file_system_of
from gitdist.doctor.services import check_ledger, check_mlflow, check_store
from gitdist.doctor.time_limit import NoAnswerError, answer_within
from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.study.checks import check_services
from gitdist.study.files.layout import StudyPaths, shared_store
from gitdist.study.files.results import ObjectStoreResults
from gitdist.study.monitoring.mlflow.uri import database_file, tracking_uri
from gitdist.study.scheduling.packing import Node

_DESCRIBE_S = 60.0
_DISK_S = 20.0


def examine(results: Path | ObjectStoreResults, address: str | None, specs: Sequence[StudySpec]) -> list[Finding]:
    """Examine this machine, the services and the cluster; equal findings appear once."""
    findings, here = _examine_machine()
    with ExitStack() as stack:
        directory = None
        if isinstance(results, Path):
            folder, token, report = stack.enter_context(_file_in(results))
            findings += check_directory(HERE, folder, report)
            directory = folder, token
        stores: dict[str, tuple[str, str]] = {}
        uris = [None if isinstance(results, Path) else results.uri, *map(shared_store, specs)]
        for uri in dict.fromkeys(uri for uri in uris if uri is not None):
            name = f"doctor.{secrets.token_hex(8)}"
            found, clean = check_store(uri, name, results=uri == uris[0])
            findings.append(found)
            stack.callback(_clean, clean)
            if found.state == "ok":
                stores[uri] = (found.check, name)
        for configured in dict.fromkeys([spec.tracking.uri for spec in specs] or [None]):
            findings += _examine_tracking(configured, results)
        for spec in specs:
            findings += _examine_ledger(spec, results)
        if address is not None:
            from gitdist.doctor.cluster import examine_cluster  # imports Ray, which is slow

            findings += examine_cluster(address, specs, here, directory, stores)
        elif here is not None and specs:
            from gitdist.study.cluster.connect import local_cpus  # imports Ray

            for spec in specs:
                node = Node(HERE, local_cpus(spec.resources, spec.num_servers), [1.0] * len(here.gpus))
                findings += check_capacity(HERE, [node], spec)
    return list(dict.fromkeys(findings))


def _examine_machine() -> tuple[list[Finding], MachineReport | None]:
    try:
        here = MachineReport(**answer_within(_DESCRIBE_S, partial(describe_machine, all_gpus=False)))
    except NoAnswerError as error:
        return [Finding("machine", HERE, "problem", str(error), "look for a disk or a driver that hangs (dmesg)")], None
    return [check_versions(here), *check_machine(HERE, here)], here


def _examine_tracking(configured: str | None, results: Path | ObjectStoreResults) -> Iterator[Finding]:
    paths = StudyPaths.at(results, "study")
    with suppress(SpecError):  # a finding of ``_examine_ledger``
        uri = tracking_uri(paths, configured)
        yield check_mlflow(uri)
        if (file := database_file(uri)) is not None:
            yield from check_sqlite("MLflow", file.parent, _file_system(file.parent))


def _examine_ledger(spec: StudySpec, results: Path | ObjectStoreResults) -> Iterator[Finding]:
    try:
        check_services(spec, StudyPaths.at(results, spec.name).results)
    except SpecError as error:
        yield Finding.of_error("services", HERE, error)
        return
    yield check_ledger(spec.ledger)
    if spec.ledger == "sqlite" and isinstance(results, Path):
        yield from check_sqlite("ledger", results, _file_system(results))


def _file_system(path: Path) -> str | None:
    with suppress(NoAnswerError, OSError):
        return answer_within(_DISK_S, partial(file_system_of, path))
    return None


@contextmanager
def _file_in(results: Path) -> Iterator[tuple[Path, str, DirectoryReport]]:
    """Put a file into the results directory, or the nearest existing directory above it, and remove it at the end."""
    token = f".doctor.{secrets.token_hex(8)}"

    def write() -> tuple[Path, DirectoryReport]:
        folder = results
        while not os.path.lexists(folder):
            folder = folder.parent
        with suppress(OSError):  # reported by ``describe_directory``
            (folder / token).touch()
        return folder, DirectoryReport(**describe_directory(str(folder), None))

    try:
        folder, report = answer_within(_DISK_S, write)
    except (NoAnswerError, OSError) as error:
        folder, report = results, DirectoryReport(error=f"{results}: {error}")
    try:
        yield folder, token, report
    finally:
        _clean(partial(answer_within, _DISK_S, (folder / token).unlink))


def _clean(clean: Callable[[], None]) -> None:
    with suppress(Exception):  # what stays is small, or in use by others
        clean()
