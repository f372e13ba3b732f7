"""Starts or joins Ray, and lists the resources of its nodes."""

import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.exceptions import AuthenticationError
from ray.job_config import JobConfig

from gitdist.errors import RayUnavailableError, first_line
from gitdist.limits import (
    MIN_OPEN_FILES,
    MIN_PROCESSES,
    home_error,
    max_open_files,
    spare_processes,
    temporary_directory,
    temporary_error,
    usable_cpus,
)
from gitdist.spec import ResourcesSpec
from gitdist.study.cluster.signals import restoring_handlers
from gitdist.study.cluster.watchdog import check_port, raising_death, watched
from gitdist.study.scheduling.packing import Node

NAMESPACE = "gitdist"
LOCAL = "local"  # the address of a Ray that this process starts
_AUTH_MODE = "RAY_AUTH_MODE"  # environment variable of Ray, "token" or "disabled"
_JOIN = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")  # in Ray's error message: the cluster's, then this machine's


class _SearchPath(JobConfig):
    """Has workers search for modules where this process does; Ray would always add the working directory.

    A file there may be named like a module of a library.
    """

    def _serialize(self) -> Any:
        searched = {os.path.realpath(directory) for directory in sys.path}
        self._py_driver_sys_path = [path for path in self._py_driver_sys_path if os.path.realpath(path) in searched]
        return super()._serialize()


@dataclass(frozen=True)
class AliveNode:
    """A node of the connected cluster that is alive.

    Attributes:
        id: Ray's node ID.
        resources: its display name, and its total resources, used or free.
        object_store_bytes: size of its object store.
    """

    id: str
    resources: Node
    object_store_bytes: float


def ray_address(address: str | None) -> str:
    """Return the address of the cluster to join: ``address``, else ``$RAY_ADDRESS``; ``LOCAL`` = start Ray here."""
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


def check_address(address: str | None) -> None:
    """Refuse Ray Client addresses, and addresses without a listener, which Ray itself would retry for minutes.

    Raises:
        RayUnavailableError: no connection within a few seconds, or an address of Ray Client.
    """
    address = ray_address(address)
    if address.startswith("ray://"):
        raise RayUnavailableError(
            f"a study must be run from a node of the cluster, not through Ray Client, but the address is '{address}'",
            remedy="submit",
        )
    _, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        check_port(address)
    except OSError as error:
        raise _unreachable_error(address, error.strerror or str(error)) from None


@contextmanager
def connected(
    address: str | None, resources: ResourcesSpec, num_servers: int, on_death: Callable[[bool, str], None] | None = None
) -> Iterator[int | None]:
    """Join the Ray cluster at ``address`` (or ``$RAY_ADDRESS``), or start Ray on this machine; leave it at the end.

    If this process has joined or started Ray already, use that, and leave it running.

    Args:
        address: of the cluster; None = ``$RAY_ADDRESS``, else this machine.
        resources: resources per process of the study; Ray on this machine must have at least these.
        num_servers: generator servers of the study.
        on_death: called on a thread when Ray has died, with whether this process started it, and the cause; see
            ``watchdog``. None = RayUnavailableError is raised in the block.

    Yields:
        The CPUs that servers and trials may take together; None = as many as the cluster has.
    """
    if ray.is_initialized():
        current = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", current):
            raise RayUnavailableError(
                f"this process is connected to Ray at {current}, so the address must be that, but it is '{address}'; "
                "omit it, or call ray.shutdown() before"
            )
        with raising_death(current):
            yield None
        return
    address = ray_address(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "namespace": NAMESPACE}
    options["job_config"] = _SearchPath()
    if address != LOCAL:
        _check_token_is_taken(address)
    else:
        check_ray_can_start()
        options |= {
            "_temp_dir": str(temporary_directory() / "ray"),
            "num_cpus": max(local_cpus(resources, num_servers), math.ceil(resources.training.cpu)),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    ray._private.worker.print_to_stdstream = _log_raylet_message
    try:
        with restoring_handlers():
            ray.init(address=address, **options)
    except SystemExit:  # raised by the handler of SIGTERM that Ray sets while it starts
        raise KeyboardInterrupt from None
    except AuthenticationError:
        raise RayUnavailableError(
            f"the cluster at '{address}' needs a token, but this machine has no valid one; copy ~/.ray/auth_token "
            "of its head node to the same path here, or set RAY_AUTH_TOKEN_PATH"
        ) from None
    except Exception as error:  # Ray also raises plain exceptions if its start takes too long
        if address == LOCAL:
            raise RayUnavailableError(f"Ray cannot be started on this machine ({first_line(error)})") from error
        raise _version_error(address, error) or _unreachable_error(address, first_line(error)) from None
    try:
        started_here = address == LOCAL
        cluster = None if started_here else ray.get_runtime_context().gcs_address
        with watched(partial(on_death, started_here), cluster) if on_death else raising_death(cluster):
            yield local_cpus(resources, num_servers) if started_here else None
    finally:
        ray.shutdown()


def _check_token_is_taken(address: str) -> None:
    """Refuse to join a cluster without tokens if this process requires them: Ray would end each of its workers.

    The head's calls have no token, so this process refuses them, and the head takes that for its death.
    """
    if not is_token_auth_enabled():
        return
    environment = {**os.environ, _AUTH_MODE: "disabled"}  # a process cannot change it once it has used Ray
    if subprocess.run([sys.executable, "-c", _JOIN, address], env=environment, capture_output=True).returncode:
        return  # it takes tokens, or does not answer, which joining it reports
    raise RayUnavailableError(
        f"a cluster and those who join it must use the same token, but that at '{address}' uses none, and {_AUTH_MODE} "
        f"is 'token' here; set {_AUTH_MODE}=disabled here, or start the cluster with {_AUTH_MODE}=token"
    )


def cluster_nodes() -> list[Node]:
    """Return the total resources of each alive node of the connected cluster."""
    return [node.resources for node in alive_nodes()]


def alive_nodes() -> list[AliveNode]:
    """Return the alive nodes of the connected cluster."""
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    addresses = [node["NodeManagerAddress"] for node in alive]
    nodes = []
    for index, node in enumerate(alive):
        num_same = addresses[:index].count(addresses[index])
        name = addresses[index] + (f" ({num_same + 1})" if num_same else "")
        resources = node["Resources"]
        nodes.append(
            AliveNode(
                id=node["NodeID"],
                resources=Node(name, resources.get("CPU", 0.0), [1.0] * int(resources.get("GPU", 0.0))),
                object_store_bytes=resources.get("object_store_memory", 0.0),
            )
        )
    return nodes


def local_cpus(resources: ResourcesSpec, num_servers: int) -> int:
    """Return the CPUs that servers and trials may take here: those of this process, or more if one trial needs more."""
    needed = max(num_servers * resources.server.cpu + resources.trial.cpu, resources.server.cpu)
    return max(usable_cpus(), math.ceil(needed))


def check_ray_can_start() -> None:
    """Refuse to start Ray where it would fail after minutes, or die later."""
    spare, cause = spare_processes(), temporary_error()
    remedy = "set RAY_TMPDIR to a short path on a local disk"
    if cause is None and (cause := home_error()):
        remedy = "set HOME to a directory that can be written"
    if cause is None and spare is not None and spare < MIN_PROCESSES:
        cause = f"it needs {MIN_PROCESSES} processes and threads, but only {spare} may be started"
        remedy = "raise the limit (ulimit -u, or that of the container)"
    if cause is None and max_open_files() < MIN_OPEN_FILES:
        cause = f"it needs {MIN_OPEN_FILES} open files, but a process may only have {max_open_files()}"
        remedy = "raise the hard limit (ulimit -Hn, or that of the container)"
    if cause is not None:
        raise RayUnavailableError(f"Ray cannot be started on this machine: {cause}; {remedy}")


def _log_raylet_message(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    """Log a message about a lost worker or node, in place of Ray's function, which prints it."""
    logging.getLogger("ray").error("\n".join(data["lines"]))


def _version_error(address: str, error: BaseException) -> RayUnavailableError | None:
    """Return a one-line error if Ray refused to join because of different versions, else None."""
    versions = _VERSIONS.findall(str(error))
    if len(versions) != 2:
        return None
    (there_ray, there_python), (here_ray, here_python) = versions
    return RayUnavailableError(
        f"the cluster at '{address}' runs Ray {there_ray} on Python {there_python}, but this machine has Ray "
        f"{here_ray} on Python {here_python}; install the same versions of both on every node and here"
    )


def _unreachable_error(address: str, reason: str) -> RayUnavailableError:
    return RayUnavailableError(
        f"no Ray cluster can be reached at '{address}' ({reason}); start one with `ray start --head`, or give no "
        "address (nor RAY_ADDRESS) to use this machine"
    )
