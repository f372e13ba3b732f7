"""The cluster: an actor on each node, which takes no CPU, answers for it; each question has a time limit.

here     examiner (one a node)
describe ->  versions, cards, ports                    } asked of all nodes at once; one that does not answer
directory -> leaves its token, looks for ours          } in time, or dies, costs its own answer only
now      ->  its clock, several times
place    ->  the store's shared place
then here looks for each node's token, and the nodes delete theirs
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gitdist.address import without_secrets
from gitdist.doctor import machine
from gitdist.doctor.bare import asks_for_token
from gitdist.doctor.exposure import (
    check_authentication,
    check_listening,
    check_public_addresses,
    check_token_file,
)
from gitdist.doctor.finding import Finding
from gitdist.doctor.hardware import ClockSample, check_asked_cards, check_cards, check_clock, check_memory
from gitdist.doctor.machine import AUTH_MODE, RAY_PORT, DirectoryReport, Examiner, MachineReport, sees_token
from gitdist.doctor.patience import OutOfPatience, within
from gitdist.doctor.results import check_directory, check_sharing
from gitdist.doctor.room import check_room
from gitdist.doctor.versions import compare_versions
from gitdist.errors import StudyError, first_line
from gitdist.spec import ResourcesSpec, StudySpec
from gitdist.study.cluster.connect import LivingNode, check_address, connected, living_nodes

_JOIN_S = 40.0
_DESCRIBE_S = 90.0  # a worker starts, torch is imported from a cold disk
_ASK_S = 20.0
_NUM_CLOCK_SAMPLES = 5
_RAYS_REFUSAL = "Failed to connect"
_DEAF = "look at `ray status` and the logs there (/tmp/ray/session_latest/logs), then start its Ray again"


@dataclass(frozen=True, kw_only=True)
class ClusterQuestion:
    """What the nodes are asked about.

    Attributes:
        results: the results directory, or the URI of results on an object store.
        token: the file that was left in the directory.
        here: this machine, with which they are compared; None where it could not tell.
        stores: the token that was left in each place on an object store, and in each shared one, by its URI.
        specs: studies that should find room.
    """

    results: Path | str
    token: str
    here: MachineReport | None
    stores: Mapping[str, str]
    specs: tuple[StudySpec, ...]


def examine_cluster(address: str, question: ClusterQuestion) -> list[Finding]:
    """Join a cluster, ask all of its nodes and leave it.

    Args:
        address: ``HOST:PORT``.
        question: what they are asked about.
    """
    with ExitStack() as stack:
        try:
            check_address(address)
            joining = connected(address, ResourcesSpec(), 0)
            dashboard = within(_JOIN_S, joining.__enter__)
        except (StudyError, OutOfPatience) as error:
            return [_not_joined(address, error)]
        stack.callback(_leave, lambda: joining.__exit__(None, None, None))
        try:
            return _examine(living_nodes(), dashboard, question)
        except RayError as error:  # of no node's answer: the head itself
            return [Finding("cluster", "cluster", "problem", f"it was lost meanwhile ({first_line(error)})", _DEAF)]


def _not_joined(address: str, error: Exception) -> Finding:
    token = f"; if it asks for a token, set {AUTH_MODE}=token and copy its ~/.ray/auth_token here"
    if isinstance(error, OutOfPatience):
        seen = f"what listens at '{address}' lets nobody in within {_JOIN_S:g} s"
        return Finding("cluster", "cluster", "problem", seen, f"give the address of a Ray head, HOST:6379{token}")
    found = Finding.of_error("cluster", "cluster", error)
    refused = _RAYS_REFUSAL in found.seen  # which is all that Ray says, whatever the reason is
    return replace(found, remedy=found.remedy + token) if refused else found


def _leave(leave: Callable[[], Any]) -> None:
    with suppress(OutOfPatience):
        within(_ASK_S, leave)


def _examine(nodes: list[LivingNode], dashboard: str, question: ClusterQuestion) -> list[Finding]:
    offers = [node.offers for node in nodes]
    num_cards = sum(len(node.cards) for node in offers)
    total = f"{len(nodes)} node(s), {sum(node.cpu for node in offers):g} CPU, {num_cards} GPU"
    findings = [Finding("cluster", "cluster", "ok", total)]
    for spec in question.specs:
        findings += [*check_asked_cards("cluster", spec, num_cards), check_room("cluster", offers, spec)]
    with _examiners(nodes) as examiners:
        findings += _described(nodes, examiners, dashboard, question)
        if isinstance(question.results, Path):
            findings += _shared(examiners, question.results, question.token)
        findings += _told_time(examiners)
        findings += _reached_stores(examiners, question)
    return findings


@contextmanager
def _examiners(nodes: list[LivingNode]) -> Iterator[dict[str, Any]]:
    """Yield an actor on each node by the node's name; what they run is sent along, whatever gitdist is there."""
    ray.cloudpickle.register_pickle_by_value(machine)  # type: ignore[no-untyped-call]
    try:
        actors: dict[str, Any] = {
            node.offers.name: ray.remote(Examiner)
            .options(
                num_cpus=0, max_concurrency=4, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            )
            .remote()
            for node in nodes
        }
        try:
            yield actors
        finally:
            for actor in actors.values():
                ray.kill(actor)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(machine)  # type: ignore[no-untyped-call]


def _ask(examiners: dict[str, Any], method: str, limit_s: float, *arguments: Any) -> dict[str, Any]:
    """Ask all nodes the same and return their answers by name; where one failed, an ``OutOfPatience`` that says why."""
    return _gather({name: getattr(actor, method).remote(*arguments) for name, actor in examiners.items()}, limit_s)


def _gather(references: dict[str, Any], limit_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    answers = {}
    for name, reference in references.items():
        try:
            answers[name] = ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
        except GetTimeoutError:
            answers[name] = OutOfPatience(f"no answer within {limit_s:g} s")
        except RayTaskError as error:
            answers[name] = OutOfPatience(first_line(error.cause))
        except RayError as error:  # the actor or its node has died
            answers[name] = OutOfPatience(first_line(error))
    return answers


def _described(
    nodes: list[LivingNode], examiners: dict[str, Any], dashboard: str, question: ClusterQuestion
) -> list[Finding]:
    watched = _heads_ports(dashboard)
    asked = {
        node.offers.name: examiners[node.offers.name].describe.remote(watched if node.is_head else {}) for node in nodes
    }
    answers = _gather(asked, _DESCRIBE_S)
    findings, reached_at = [], [node.address for node in nodes]
    for node in nodes:
        name, answer = node.offers.name, answers[node.offers.name]
        if isinstance(answer, OutOfPatience):
            findings.append(Finding("node", name, "problem", str(answer), _DEAF))
            del examiners[name]
            continue
        report = MachineReport(**answer)
        reached_at += [address for address, _, owner in report.listening if owner == RAY_PORT]
        findings += _judged(node, report, question.here)
    return [_authentication(reached_at), *findings]


def _authentication(reached_at: Iterable[str]) -> Finding:
    try:
        asks = asks_for_token(ray.get_runtime_context().gcs_address)
    except OutOfPatience as error:
        return Finding(
            "authentication", "cluster", "problem", f"the head does not answer a second time ({error})", _DEAF
        )
    return check_authentication(asks, os.environ.get(AUTH_MODE), reached_at)


def _heads_ports(dashboard: str) -> dict[int, str]:
    """Return whose the ports of the head are that should not be open to others."""
    ports = {ray.get_runtime_context().gcs_address: RAY_PORT, dashboard: "Ray dashboard"}
    numbers = {address.rpartition(":")[2]: owner for address, owner in ports.items()}
    return {int(number): owner for number, owner in numbers.items() if number.isdigit()}


def _judged(node: LivingNode, report: MachineReport, here: MachineReport | None) -> list[Finding]:
    name = node.offers.name
    return [
        *([compare_versions(here, name, report)] if here is not None else []),
        check_cards(name, report, len(node.offers.cards)),
        check_memory(name, report, node.object_store_bytes),
        *check_public_addresses(name, report),
        *check_listening(name, report),
        *check_token_file(name, report),
    ]


def _shared(examiners: dict[str, Any], path: Path, token: str) -> list[Finding]:
    names = list(examiners)
    tokens = {name: f"{token}.{number}" for number, name in enumerate(names)}
    asked = {name: examiners[name].directory.remote(str(path), token, tokens[name]) for name in names}
    findings: list[Finding] = []
    for name, answer in _gather(asked, _ASK_S).items():
        if isinstance(answer, OutOfPatience):
            remedy = f"mend the disk of {path} there, a network disk that hangs say"
            findings.append(Finding("results", name, "problem", f"{path}: {answer}", remedy))
            continue
        report = DirectoryReport(**answer)
        findings += check_directory(name, path, report)
        sharing = check_sharing(name, path, report, bool(not report.trouble and _seen_here(path, tokens[name])))
        findings += [sharing] if sharing else []
    _gather({name: examiners[name].remove.remote(str(path), tokens[name]) for name in names}, _ASK_S)
    return findings


def _seen_here(path: Path, token: str) -> bool:
    try:
        return within(_ASK_S, lambda: sees_token(path, token))
    except OutOfPatience:
        return False


def _told_time(examiners: dict[str, Any]) -> list[Finding]:
    findings = []
    for name, actor in examiners.items():
        samples: list[ClockSample] = []
        for _ in range(_NUM_CLOCK_SAMPLES):
            asked = time.time()
            with suppress(RayError):
                there = ray.get(actor.now.remote(), timeout=_ASK_S / _NUM_CLOCK_SAMPLES)
                samples.append((asked, there, time.time()))
        findings += [check_clock(name, samples)] if samples else []
    return findings


def _reached_stores(examiners: dict[str, Any], question: ClusterQuestion) -> list[Finding]:
    findings = []
    for uri, token in question.stores.items():
        shown = without_secrets(uri)
        check, named = ("results", "--results") if uri == question.results else ("store", "store.uri")
        remedy = f"make {named} reachable from there: its network, its credentials, or a path that every node mounts"
        for name, answer in _ask(examiners, "place", _ASK_S, uri, token).items():
            if answer is None:
                findings.append(Finding(check, name, "ok", f"{shown} answers"))
            else:
                findings.append(Finding(check, name, "problem", f"{shown}: {answer}", remedy))
    return findings
