"""Starting and ending a study's stream: one router and its generator servers, as named Ray actors.

    launch_stream -> resources for all servers, spread over the nodes -> server-0 .. server-n (load data set and
    generator) -> router (knows the servers) -> StreamHandle

``launch_stream`` waits until every server has loaded; an error there ends the launch.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.exceptions import RayError
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from gitdist.data.dataset import Dataset
from gitdist.errors import StreamError
from gitdist.spec import Share
from gitdist.stream.blocks import BlockLayout, StreamSignature
from gitdist.stream.client import StreamTransform, stream_error
from gitdist.stream.reservation import POLL_S, WaitReporter, reserve
from gitdist.stream.router import Router, RouterStats
from gitdist.stream.server import STATS_GROUP, GeneratorServer, ServerConfig, ServerStats
from gitdist.stream.stats_poller import StatsPoller

_RESTARTING = {"max_restarts": -1, "max_task_retries": -1}
_SERVER_TASK_RETRIES = 3  # a block that kills its server every time must fail, not keep its readers waiting for ever
_SAFE_SHARE = 0.6  # of an object store: Ray spills from 0.8 on, and clients hold blocks that have left the window


@dataclass(frozen=True, kw_only=True)
class StreamHandle:
    """A running stream; it lives as long as this handle and the process that launched it."""

    router_name: str  # clients connect to it
    router: Any  # handle of the actor
    servers: list[Any]  # handles of the actors
    placement: PlacementGroup
    signature: StreamSignature  # of the blocks that the servers make
    generator: str  # how errors name it
    warning: str  # a setting that could not be met; empty if all could

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @property
    def transform(self) -> StreamTransform:
        """What transforms images on the servers."""
        return StreamTransform(self.servers, self.signature.digest, self.generator)

    def stats(self) -> tuple[RouterStats, list[ServerStats]]:
        """Return what the router and each server have done; waits for the blocks that are being made."""
        servers: list[ServerStats] = ray.get([server.stats.remote() for server in self.servers])
        router: RouterStats = ray.get(self.router.stats.remote())
        return router, servers

    def server_nodes(self) -> list[str]:
        """Return Ray's id of the node of each server, if it has one now."""
        return list(placement_group_table(self.placement)["bundles_to_node_id"].values())

    def stats_poller(self) -> StatsPoller:
        """Return a new poller of this stream's figures."""
        return StatsPoller(self.router, self.servers)

    def shutdown(self) -> None:
        """End router and servers; clients that still wait get a StreamError."""
        _end([self.router, *self.servers])
        remove_placement_group(self.placement)


def launch_stream(
    study: str,
    config: ServerConfig,
    share: Share,
    num_servers: int = 1,
    *,
    on_wait: Callable[[float], None] = lambda waited_s: None,
    on_load: Callable[[float], None] = lambda waited_s: None,
    start_limit_s: float = 600.0,
) -> StreamHandle:
    """Start a study's stream and return when it can deliver.

    Free resources for all servers are waited for without a limit: other work may end, and a cluster may add nodes.

    Args:
        study: names the actors ``gitdist-STUDY-router`` and ``gitdist-STUDY-server-0``.
        config: what the servers load; ``config.stream.window_mb`` is the size of the window.
        share: what each server takes of the cluster; the router takes nothing.
        num_servers: spread over the nodes.
        on_wait: receives the seconds waited so far for free resources, now and then.
        on_load: receives the seconds waited so far for the servers to load, now and then.
        start_limit_s: time within which all servers must have loaded once they have their resources.

    Raises:
        StreamError: a server did not start, or not all of them compute in the same way.
    """
    router_name = f"gitdist-{study}-router"
    names = [f"gitdist-{study}-server-{index}" for index in range(num_servers)]
    placement = reserve(share, num_servers, on_wait)
    servers: list[Any] = []
    try:
        for index, name in enumerate(names):
            servers.append(_start_server(name, config, share, PlacementGroupSchedulingStrategy(placement, index)))
        signatures = _load(servers, on_load, start_limit_s)
        _check_alike(signatures)
        safe = _safe_bytes(servers)
        window_bytes, warning = _window(config.stream.window_mb, safe)
        warning = warning or _held_warning(config, signatures[0].layout, safe)
        router = _start_router(router_name, names, signatures[0], window_bytes)
    except BaseException as error:
        _end(servers)
        remove_placement_group(placement)
        if isinstance(error, RayError | ValueError):
            servers_text = f"{num_servers} server(s) of {share.cpu:g} CPUs each"
            raise stream_error(f"start {servers_text} with {config.generator.described}", error) from error
        raise
    return StreamHandle(
        router_name=router_name,
        router=router,
        servers=servers,
        placement=placement,
        signature=signatures[0],
        generator=config.generator.described,
        warning=warning,
    )


def safe_window(nodes: Sequence[str], store_bytes: Mapping[str, float]) -> int:
    """Return how many bytes of blocks the object stores of the servers' nodes keep without spilling."""
    return int(min(_SAFE_SHARE * store_bytes[node] * len(nodes) / count for node, count in Counter(nodes).items()))


def _start_server(name: str, config: ServerConfig, share: Share, placement: PlacementGroupSchedulingStrategy) -> Any:
    groups: dict[str, Any] = {"concurrency_groups": {STATS_GROUP: 1}}  # which ``options`` does not take
    actor = ray.remote(num_cpus=share.cpu, num_gpus=share.num_gpus, **groups)(GeneratorServer)
    options = {**_RESTARTING, "max_task_retries": _SERVER_TASK_RETRIES}
    return actor.options(name=name, scheduling_strategy=placement, **options).remote(config, share)


def _load(servers: list[Any], on_load: Callable[[float], None], limit_s: float) -> list[StreamSignature]:
    references = [server.signature.remote() for server in servers]
    reporter, deadline = WaitReporter(on_load), time.monotonic() + limit_s
    waiting = references
    while waiting and time.monotonic() < deadline:
        waiting = ray.wait(waiting, num_returns=1, timeout=POLL_S)[1]
        reporter.poll()
    signatures: list[StreamSignature] = ray.get(references, timeout=0)
    return signatures


def _start_router(name: str, servers: list[str], signature: StreamSignature, window_bytes: int) -> Any:
    """Start the router on the driver's node, whose loss ends the stream anyway; a soft affinity may use another one."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0)(Router).options(name=name, scheduling_strategy=here, **_RESTARTING)
    return actor.remote(servers, signature, window_bytes)


def _check_alike(signatures: list[StreamSignature]) -> None:
    """Refuse servers whose blocks would differ: it must not matter which server makes a block."""
    kinds = sorted({signature.draws["compute"] for signature in signatures})
    if len(kinds) > 1:
        raise StreamError(
            f"all servers must compute in the same way, but there are {' and '.join(kinds)}; "
            "set stream.precision, or lower resources.servers until nodes of one kind hold them"
        )


def _safe_bytes(servers: list[Any]) -> int:
    nodes: list[str] = ray.get([server.__ray_call__.remote(_node) for server in servers])
    stores = {node["NodeID"]: node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes()}  # type: ignore[no-untyped-call]
    return safe_window(nodes, stores)


def _window(asked_mb: int | None, safe: int) -> tuple[int, str]:
    """Return the bytes of the window, and a warning if they are fewer than asked for."""
    if asked_mb is None or asked_mb * 2**20 <= safe:
        return safe if asked_mb is None else asked_mb * 2**20, ""
    return safe, (
        f"stream.window_mb must be {safe // 2**20} at most, what the servers' object stores keep without spilling, "
        f"but is {asked_mb}; using {safe // 2**20}: lower it, or start Ray with more --object-store-memory"
    )


def _held_warning(config: ServerConfig, layout: BlockLayout, safe: int) -> str:
    """Return a warning if the object stores do not even keep one trial's blocks."""
    held = Dataset.open(config.dataset).num_classes * (config.stream.lookahead + 1) * layout.block_bytes
    if held <= safe:
        return ""
    return (
        f"a trial's blocks of all classes take {held / 1e9:.1f} GB, but the servers' object stores keep "
        f"{safe / 1e9:.1f} GB; lower stream.lookahead, or set stream.block_size to auto or to less than "
        f"{layout.block_size}"
    )


def _node(server: GeneratorServer) -> str:
    return ray.get_runtime_context().get_node_id()


def _end(actors: list[Any]) -> None:
    for actor in actors:
        ray.kill(actor, no_restart=True)
