"""Asks the nodes of a cluster, by tasks that take no CPU: all nodes at once, each question with a time limit.

A node that dies or does not answer in time costs its own answer only, and is asked nothing else.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gitdist import limits
from gitdist.address import without_secrets
from gitdist.doctor import machine
from gitdist.doctor.checks import check_capacity, check_directory, check_machine, compare_versions
from gitdist.doctor.finding import Finding
from gitdist.doctor.machine import DirectoryReport, MachineReport
from gitdist.doctor.time_limit import NoAnswerError, answer_within
from gitdist.errors import StudyError, first_line
from gitdist.spec import ResourcesSpec, StudySpec
from gitdist.study.cluster.connect import AliveNode, alive_nodes, check_address, connected

_JOIN_S = 40.0
_DESCRIBE_S = 90.0  # a worker starts, torch is imported from a cold disk
_ASK_S = 20.0
_TOKEN = "if the cluster needs a token, set RAY_AUTH_MODE=token and copy its ~/.ray/auth_token here"
_RAYS_REFUSAL = "Failed to connect"  # Ray says no more, whatever the reason
_RESTART = "look at `ray status` and the logs there (/tmp/ray/session_latest/logs), then start its Ray again"


def examine_cluster(
    address: str,
    specs: Sequence[StudySpec],
    here: MachineReport | None,
    directory: tuple[Path, str] | None,
    stores: Mapping[str, tuple[str, str]],
) -> list[Finding]:
    """Join a cluster, ask all of its nodes and leave it."""
    with ExitStack() as stack:
        try:
            check_address(address)
            joining = connected(address, ResourcesSpec(), 0)
            answer_within(_JOIN_S, joining.__enter__)
        except NoAnswerError:
            seen = f"what listens at '{address}' does not answer as a Ray head within {_JOIN_S:g} s"
            return [Finding("cluster", "cluster", "problem", seen, f"give a Ray head's HOST:6379; {_TOKEN}")]
        except StudyError as error:
            hint = f"; {_TOKEN}" if _RAYS_REFUSAL in str(error) else ""
            return [Finding.of_error("cluster", "cluster", StudyError(f"{first_line(error)}{hint}"))]
        stack.callback(_leave, joining)
        for module in (machine, limits):
            ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
            stack.callback(ray.cloudpickle.unregister_pickle_by_value, module)
        try:
            nodes = alive_nodes()
            offers = [node.resources for node in nodes]
            total = f"{len(nodes)} node(s), {sum(node.cpu for node in offers):g} CPU"
            findings = [Finding("cluster", "cluster", "ok", f"{total}, {sum(len(node.cards) for node in offers)} GPU")]
            findings += [found for spec in specs for found in check_capacity("cluster", offers, spec)]
            answers = _ask(nodes, machine.describe_machine, _DESCRIBE_S, True)
            for node in nodes:
                findings += _judge(node, answers[node.resources.name], here)
            nodes = [node for node in nodes if not isinstance(answers[node.resources.name], NoAnswerError)]
            if directory is not None:
                findings += _judge_directories(nodes, *directory)
            for uri, (check, token) in stores.items():
                option = "--results" if check == "results" else "store.uri"
                remedy = f"make {option} reachable from there: network, credentials, or a path that every node mounts"
                for name, reason in _ask(nodes, machine.read_place, _ASK_S, uri, token).items():
                    seen = f"{without_secrets(uri)} {'answers' if reason is None else f'fails: {reason}'}"
                    findings.append(Finding.judge(reason is None, check, name, seen, remedy))
        except RayError as error:  # of the head, not of a node
            return [Finding("cluster", "cluster", "problem", f"was lost meanwhile ({first_line(error)})", _RESTART)]
        return findings


def _leave(joining: Any) -> None:
    with suppress(NoAnswerError):
        answer_within(_ASK_S, lambda: joining.__exit__(None, None, None))


def _judge(node: AliveNode, answer: Any, here: MachineReport | None) -> list[Finding]:
    name = node.resources.name
    if isinstance(answer, NoAnswerError):
        return [Finding("node", name, "problem", str(answer), _RESTART)]
    report = MachineReport(**answer)
    versions = [compare_versions(here, name, report)] if here else []
    return [*versions, *check_machine(name, report, node.resources, node.object_store_bytes)]


def _judge_directories(nodes: Sequence[AliveNode], path: Path, token: str) -> list[Finding]:
    findings: list[Finding] = []
    for name, answer in _ask(nodes, machine.describe_directory, _ASK_S, str(path), token).items():
        if isinstance(answer, NoAnswerError):
            remedy = f"repair the disk of {path} there: a network disk may hang"
            findings.append(Finding("results", name, "problem", f"{path}: {answer}", remedy))
        else:
            findings += check_directory(name, path, DirectoryReport(**answer))
    return findings


def _ask(nodes: Sequence[AliveNode], question: Callable[..., Any], limit_s: float, *arguments: Any) -> dict[str, Any]:
    """Return the answers by the nodes' names; a ``NoAnswerError`` that says why for each that failed."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(question)
    strategies = {node.resources.name: NodeAffinitySchedulingStrategy(node.id, soft=False) for node in nodes}
    references = {name: task.options(scheduling_strategy=on).remote(*arguments) for name, on in strategies.items()}
    deadline = time.monotonic() + limit_s
    answers = {}
    for name, reference in references.items():
        try:
            answers[name] = ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
        except GetTimeoutError:
            answers[name] = NoAnswerError(f"no answer within {limit_s:g} s")
        except RayError as error:
            answers[name] = NoAnswerError(first_line(error.cause if isinstance(error, RayTaskError) else error))
    return answers
