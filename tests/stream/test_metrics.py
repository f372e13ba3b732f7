"""What Ray exports of a stream over HTTP, and that a Ray that exports nothing serves it as well."""

import os
import re
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from gitdist.spec import OracleSpec, StreamSpec
from gitdist.stream.draws import DrawStream
from gitdist.stream.names import parse_server, router_name, server_name
from gitdist.stream.server import ServerConfig
from tests.stream.streams import connected, keys_of, running
from tests.waiting import until

_LINE = re.compile(r"ray_(gitdist_\w+)\{(.*)\} (\S+)")
Scraped = dict[str, dict[str | None, float]]


@pytest.fixture(scope="module")
def exporting_ray() -> Iterator[None]:
    """A Ray of this machine that collects its processes' metrics every half second, not every ten."""
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    ray.init(num_cpus=4, _system_config={"metrics_report_interval_ms": 500}, **options)
    yield
    ray.shutdown()


def scrape(stream: str) -> Scraped:
    """Return each metric of a stream by its server, summed over processes, as Prometheus would read it."""
    found: Scraped = defaultdict(lambda: defaultdict(float))
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        for name, tags, value in (match.groups() for line in lines if (match := _LINE.match(line))):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', tags))
            if labels["stream"] == stream:
                found[name][labels.get("server")] += float(value)
    return found


@pytest.mark.ray
@pytest.mark.usefixtures("exporting_ray")
def test_what_is_scraped_is_what_servers_and_router_report(digits_directory: Path) -> None:
    stream = StreamSpec.model_validate({"block_size": 20})
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artefact=None, stream=stream)
    keys = keys_of(range(10), range(4))
    with running(config, 2) as handle:
        name = handle.router_name.removeprefix("gitdist-").removesuffix("-router")
        with connected(handle) as client:
            client.get(keys)
            draws = DrawStream(client, 10, 20, 0)
            draws.cursors = np.full(10, 100)
            draws.take(np.arange(10))
        handle.transform(np.zeros((5, 1, 8, 8), np.uint8), np.zeros((5, 1, 8, 8), np.uint8), "preview")
        until(lambda: handle.stats()[0].outstanding == (0, 0))
        router, servers = handle.stats()

        def exported() -> bool:
            found = scrape(name)
            return (
                found["gitdist_images_generated_total"]
                == {str(place): server.done.images for place, server in enumerate(servers)}
                and sum(found["gitdist_blocks_fetched_total"].values()) >= len(keys) + 10
                and found["gitdist_window_blocks"] == {None: router.kept}
                and found["gitdist_outstanding_blocks"] == {"0": 0, "1": 0}
            )

        until(exported, pause_s=0.2)
        found = scrape(name)
    assert sum(server.done.images for server in servers) == 20 * router.blocks + 5
    assert found["gitdist_blocks_made_total"] == {str(n): server.done.blocks for n, server in enumerate(servers)}
    for place, server in enumerate(servers):
        assert found["gitdist_generating_seconds_total"][str(place)] == pytest.approx(server.done.generating_s)
    assert found["gitdist_window_blocks"] == {None: router.kept} and router.kept == router.blocks == 50
    assert found["gitdist_window_capacity_blocks"] == {None: router.capacity}
    assert found["gitdist_outstanding_blocks"] == {"0": 0, "1": 0}
    assert found["gitdist_blocks_fetched_total"] == {None: 50}
    assert draws.waited_s <= found["gitdist_waiting_seconds_total"][None] < 60


_ALONE = """
import sys
from pathlib import Path
import ray
from ray._private.utils import get_dashboard_dependency_error
from gitdist.spec import OracleSpec, StreamSpec
from gitdist.stream.server import ServerConfig
from tests.stream.streams import connected, keys_of, running

assert get_dashboard_dependency_error() is not None
ray.init(num_cpus=2, log_to_driver=False, logging_level="error", namespace="gitdist")
stream = StreamSpec.model_validate({"block_size": 20})
config = ServerConfig(dataset=Path(sys.argv[1]), generator=OracleSpec(), artefact=None, stream=stream)
with running(config) as handle, connected(handle) as client:
    print(len(client.get(keys_of(range(10), range(2)))), handle.stats()[0].blocks)
"""


@pytest.mark.ray
def test_a_ray_without_its_dashboard_serves_the_stream_as_well(digits_directory: Path, tmp_path: Path) -> None:
    """As where ray[tune] is installed alone: its agents export nothing then."""
    for missing in ("aiohttp_cors", "opencensus", "prometheus_client", "colorful"):
        (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('no {missing} here')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(digits_directory)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["20", "20"], done.stderr


def test_a_server_is_known_by_its_name() -> None:
    assert parse_server(server_name("a-server-1-2", 13)) == ("a-server-1-2", 13)
    with pytest.raises(ValueError, match="gitdist-STUDY-server-INDEX, but this one 'gitdist-a-router'"):
        parse_server(router_name("a"))
