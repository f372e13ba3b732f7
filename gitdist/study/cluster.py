"""Starting or joining Ray, and whether a study fits."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import ray

from gitdist.errors import RayTrouble, StudyError, first_line
from gitdist.spec import ResourcesSpec, Share
from gitdist.study.interrupts import handlers_kept
from gitdist.study.watchdog import watched

NAMESPACE = "gitdist"
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Room:
    """What the study gets of the cluster: trials at once, and a sentence about it."""

    max_concurrent: int
    note: str


def check_address(address: str | None) -> None:
    """Refuse a cluster address at which nobody listens; Ray itself would try for minutes.

    Raises:
        RayTrouble: no connection within a few seconds.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from None


@contextmanager
def connected(
    address: str | None, resources: ResourcesSpec, num_servers: int, on_death: Callable[[], None] | None = None
) -> Iterator[None]:
    """Join the Ray cluster at ``address`` (or ``$RAY_ADDRESS``), or start one on this machine; leave it at the end.

    Args:
        address: where the cluster is; None = the environment's, else this machine.
        resources: what the study takes, which a Ray of this machine must offer.
        num_servers: generator servers of the study.
        on_death: called on a thread when a Ray started here has died; see ``watchdog``.

    Raises:
        RayTrouble: no cluster answers there, or Ray cannot be started on this machine.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": NAMESPACE}
    if address == "local":
        options |= {
            "num_cpus": _local_cpus(resources, num_servers),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        with handlers_kept():
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address == "local":
            raise RayTrouble(f"Ray cannot be started on this machine ({first_line(error)})") from error
        raise _unreachable(address, first_line(error)) from None
    try:
        with watched(on_death) if on_death and address == "local" else nullcontext():
            yield
    finally:
        ray.shutdown()


def find_room(resources: ResourcesSpec, num_servers: int) -> Room:
    """Return how many trials run at once beside the servers on the connected cluster.

    Raises:
        StudyError: the servers and one trial do not fit; the message says what is missing.
    """
    total = _capacity()
    fits = []
    for kind, server, trial in (
        ("CPU", resources.server.cpu, resources.trial.cpu),
        ("GPU", resources.server.gpu, resources.trial.gpu),
    ):
        have, need = total[kind], num_servers * server + trial
        if need > have + 1e-6:
            raise StudyError(
                f"resources: {num_servers} server(s) of {server:g} {kind} and one trial of {trial:g} need {need:g} "
                f"{kind}, but the cluster has {have:g}; lower stream.servers or resources"
            )
        if trial > 0:
            fits.append(int((have - num_servers * server + 1e-6) / trial))
    at_once = min([*fits, resources.max_concurrent or fits[0]])
    beside = f"beside {num_servers} generator server(s)" if num_servers else "each with a generator of its own"
    return Room(at_once, f"{at_once} trial(s) at once, {beside}")


def check_alone(share: Share, field: Literal["training", "server"], task: str) -> None:
    """Refuse a task, which runs while nothing else does, that the connected cluster never has room for.

    Args:
        share: what it takes.
        field: of ``resources``, which says so.
        task: what it does: "train the generator".

    Raises:
        StudyError: it asks for more than there is.
    """
    total = _capacity()
    for kind, need in (("CPU", share.cpu), ("GPU", share.gpu)):
        if need > total[kind]:
            raise StudyError(
                f"resources.{field} asks for {need:g} {kind} to {task}, but the cluster has {total[kind]:g}; "
                f"lower resources.{field}"
            )


def _capacity() -> dict[str, float]:
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {kind: total.get(kind, 0.0) for kind in ("CPU", "GPU")}


def _unreachable(address: str, reason: str) -> RayTrouble:
    return RayTrouble(
        f"no Ray cluster can be reached at '{address}' ({reason}); start one with `ray start --head`, "
        "or leave --address and RAY_ADDRESS out to use this machine alone"
    )


def _local_cpus(resources: ResourcesSpec, num_servers: int) -> int:
    """Return the CPUs to declare: those of the machine, or more where even one trial needs more (they then share)."""
    together = num_servers * resources.server.cpu + resources.trial.cpu
    needed = max(together, resources.training.cpu, resources.server.cpu)
    return max(os.cpu_count() or 1, int(-(-needed // 1)))
