"""Starting and ending a study's stream: one router and its generator servers, as named Ray actors.

    launch_stream -> room for all servers, on as many nodes as there are -> server-0 .. server-n (load data set and
    generator) -> router (knows the servers) -> StreamHandle

``launch_stream`` waits until every server has loaded; what fails there ends the launch with the cause.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from gitdist.errors import StreamError
from gitdist.spec import Share
from gitdist.stream.connection import stream_error
from gitdist.stream.keys import Layout, Product
from gitdist.stream.lookout import Lookout
from gitdist.stream.names import router_name, server_name
from gitdist.stream.room import reserve
from gitdist.stream.router import Router, RouterStats
from gitdist.stream.routing import safe_window
from gitdist.stream.server import BESIDE, GeneratorServer, ServerConfig, ServerStats

_RESTARTING = {"max_restarts": -1, "max_task_retries": -1}
_SERVER_TASK_RETRIES = 3  # a block that kills its server every time must fail, not keep its readers waiting for ever


class StreamHandle:
    """A running stream; it lives as long as this handle and the process that launched it.

    Attributes:
        router_name: what clients connect to.
        layout: block size and image shape.
        draws: everything that determines the servers' draws, as they say.
        block_key: the name of the folder of the store where such blocks are kept.
        note: what its user should know; empty where all is as asked.
    """

    def __init__(
        self,
        router_name: str,
        router: Any,
        servers: list[Any],
        places: PlacementGroup,
        product: Product,
        note: str,
    ) -> None:
        """Hold the actors of a stream that is up; ``product`` is what each server makes."""
        self.router_name, self.note = router_name, note
        self.layout: Layout = product.layout
        self.draws: Mapping[str, Any] = product.draws
        self.block_key: str = product.block_key
        self._router = router
        self._servers, self._places = servers, places

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def transform(
        self, images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int = 0
    ) -> NDArray[np.uint8]:
        """Return one fresh draw for each of the given images, made by a server.

        Args:
            images: uint8 ``[N, C, H, W]``.
            clean: uint8 ``[N, C, H, W]``, the same images before the nuisance.
            name: names the randomness together with ``index``; another index gives other draws.
            index: see ``name``.

        Returns:
            uint8 ``[N, C, H, W]``, read-only.

        Raises:
            StreamError: the server failed, or is where it would make other draws than those of the stream.
        """
        server = self._servers[index % len(self._servers)]
        try:
            drawn: NDArray[np.uint8] = ray.get(server.transform.remote(images, clean, name, index, self.block_key))
        except RayError as error:
            raise stream_error(f"transform {len(images)} images", error) from error
        return drawn

    def stats(self, timeout_s: float | None = None) -> tuple[RouterStats, list[ServerStats]]:
        """Return what the router and each server have done; waits for the blocks that are being made.

        Raises:
            RayError: no answer within ``timeout_s``; None = there is no limit.
        """
        servers: list[ServerStats] = ray.get([server.stats.remote() for server in self._servers], timeout=timeout_s)
        router: RouterStats = ray.get(self._router.stats.remote(), timeout=timeout_s)
        return router, servers

    def server_nodes(self) -> list[str]:
        """Return Ray's name of the node of each server's place, as far as they have one now."""
        return list(placement_group_table(self._places)["bundles_to_node_id"].values())

    def lookout(self) -> Lookout:
        """Return a new observer of this stream."""
        return Lookout(self._router, self._servers)

    def shutdown(self) -> None:
        """End router and servers; clients that still wait get a StreamError."""
        _end([self._router, *self._servers])
        remove_placement_group(self._places)


def launch_stream(
    study: str,
    config: ServerConfig,
    share: Share,
    num_servers: int = 1,
    *,
    on_wait: Callable[[float], None] = lambda waited_s: None,
    start_limit_s: float = 600.0,
) -> StreamHandle:
    """Start a study's stream and return when it can deliver.

    The servers are spread over the nodes. Room for all of them is waited for as long as it takes: other work may end,
    and a cluster may add nodes.

    Args:
        study: the study's name, which names the actors ``gitdist-STUDY-router`` and ``gitdist-STUDY-server-0``.
        config: what the servers load; ``config.stream`` says how much is kept.
        share: what each server takes of the cluster; the router takes nothing.
        num_servers: how many there are.
        on_wait: told now and then for how many seconds there has been no room.
        start_limit_s: time within which all servers must have loaded once there is room.

    Raises:
        StreamError: a server did not start, or not all of them compute in the same way.
    """
    names = [server_name(study, index) for index in range(num_servers)]
    places = reserve(share, num_servers, on_wait)
    servers: list[Any] = []
    try:
        for index, name in enumerate(names):
            servers.append(_start_server(name, config, share, PlacementGroupSchedulingStrategy(places, index)))
        products: list[Product] = ray.get([server.product.remote() for server in servers], timeout=start_limit_s)
        _check_alike(products)
        window_bytes, note = _window(config.stream.window_mb, servers)
        router = _start_router(router_name(study), names, products[0], window_bytes)
    except BaseException as error:
        _end(servers)
        remove_placement_group(places)
        if isinstance(error, RayError | ValueError):
            raise stream_error(f"start {num_servers} server(s) of {share.cpu:g} CPUs each", error) from error
        raise
    return StreamHandle(router_name(study), router, servers, places, products[0], note)


def _start_server(name: str, config: ServerConfig, share: Share, place: PlacementGroupSchedulingStrategy) -> Any:
    groups: dict[str, Any] = {"concurrency_groups": {BESIDE: 1}}  # which ``options`` does not take
    actor = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, **groups)(GeneratorServer)
    options = {**_RESTARTING, "max_task_retries": _SERVER_TASK_RETRIES}
    return actor.options(name=name, scheduling_strategy=place, **options).remote(config, share, name)


def _start_router(name: str, servers: list[str], product: Product, window_bytes: int) -> Any:
    """Start the router where the driver is: the blocks that it knows of are lost with its node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0)(Router).options(name=name, scheduling_strategy=here, **_RESTARTING)
    return actor.remote(servers, product, window_bytes)


def _check_alike(products: list[Product]) -> None:
    """Refuse servers whose blocks would differ: which server answers must not matter."""
    kinds = sorted({product.draws["compute"] for product in products})
    if len(kinds) > 1:
        raise StreamError(
            f"all servers must compute in the same way, but there are {' and '.join(kinds)}; "
            "set stream.precision, or lower resources.servers until nodes of one kind hold them"
        )


def _window(asked_mb: int | None, servers: list[Any]) -> tuple[int, str]:
    """Return the bytes of the window, and a line where they are fewer than asked for."""
    nodes: list[str] = ray.get([server.__ray_call__.remote(_node) for server in servers])
    stores = {node["NodeID"]: node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes()}  # type: ignore[no-untyped-call]
    safe = safe_window(nodes, stores)
    if asked_mb is None or asked_mb * 2**20 <= safe:
        return safe if asked_mb is None else asked_mb * 2**20, ""
    return safe, (
        f"stream.window_mb must be {safe // 2**20} at most, what the servers' object stores keep without spilling, "
        f"but is {asked_mb}; going on with {safe // 2**20}: lower it, or start Ray with more --object-store-memory"
    )


def _node(server: GeneratorServer) -> str:
    return ray.get_runtime_context().get_node_id()


def _end(actors: list[Any]) -> None:
    for actor in actors:
        ray.kill(actor, no_restart=True)
