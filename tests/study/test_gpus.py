"""Studies on GPUs that Ray counts but torch does not see, as a test machine has them."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
import yaml
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gitdist.spec import ResourcesSpec, Share
from gitdist.stream.reservation import reserve
from gitdist.study.cluster.connect import cluster_nodes
from gitdist.study.scheduling.gpu_shares import use_of_cards
from gitdist.study.scheduling.packing import pack
from tests.study.small_study import SmallStudy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SMALL = ("generator={kind: oracle}", "search.total=1", "baseline=false", "trial.epochs=1", "trial.switch_epoch=0")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 3, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


class _Holder:
    def cards(self) -> list[int]:
        return ray.get_gpu_ids()


def _hold(share: Share, placement: Any) -> Any:
    strategy = PlacementGroupSchedulingStrategy(placement)
    return (
        ray.remote(num_cpus=share.cpu, num_gpus=share.num_gpus)(_Holder).options(scheduling_strategy=strategy).remote()
    )


def test_ray_uses_the_cards_that_were_computed(cluster):
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        share = Share(gpu=0.4)
        resources = ResourcesSpec(server=share, trial=share)
        expected = use_of_cards(cluster_nodes(), resources, pack(cluster_nodes(), resources, 1).servers, 2)
        held = [_hold(share, reserve(share, 1, lambda waited_s: None))]
        held += [_hold(share, placement_group([{"CPU": share.cpu, "GPU": share.num_gpus}])) for _ in range(2)]
        server, *trials = [card for cards in ray.get([holder.cards.remote() for holder in held]) for card in cards]
    finally:
        ray.shutdown()
    assert [(int(server == card), trials.count(card)) for card in range(3)] == [(1, 1), (0, 1), (0, 0)]
    assert [(card.servers, card.trials) for card in expected] == [(1, 1), (0, 1), (0, 0)]


def test_a_study_says_how_it_shares_the_cards_which_idle_and_that_torch_sees_none(tmp_path, cluster):
    study = SmallStudy(tmp_path, overrides=(*SMALL, "trial.lr_milestones=[1]", "trial.lr_warmup_epochs=0"))
    done = study.run("--address", cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "share of a GPU: server 1, trial 1; GPU 0: 1 server(s); GPU 1: 1 trial(s); GPU 2: idle" in done.stdout
    assert "idle: GPU 2; " in done.stdout and "torch sees none" in done.stdout
    stored = yaml.safe_load((study.directory / "study.yaml").read_text().removesuffix("...\n"))
    assert {stored["resources"][task].get("gpu") for task in ("server", "trial", "training")} == {"auto"}
