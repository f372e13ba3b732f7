"""What ``gpu: auto`` means: on many random clusters, and on those that people have."""

import random

import pytest

from gitdist.spec import ResourcesSpec
from gitdist.study.scheduling.gpu_shares import (
    CardUse,
    describe_gpus,
    describe_idle,
    processes_per_card,
    share_gpus,
    use_of_cards,
)
from gitdist.study.scheduling.packing import Node, find_capacity, pack

GIB = 2**30


def resources(**fields) -> ResourcesSpec:
    return ResourcesSpec.model_validate(fields)


def gpus(cards: int, cpu: float, name: str = "a") -> Node:
    return Node(name, cpu, [1.0] * cards)


def placed(nodes: list[Node], asked: ResourcesSpec, num_trials: int = 100) -> tuple[ResourcesSpec, list[CardUse]]:
    shares = share_gpus(nodes, asked, asked.servers, num_trials)
    return shares, use_of_cards(nodes, shares, pack(nodes, shares, asked.servers).servers, num_trials)


def table(nodes: list[Node], num_trials: int = 100, **fields) -> list[tuple[int, int]]:
    return [(card.servers, card.trials) for card in placed(nodes, resources(**fields), num_trials)[1]]


@pytest.mark.parametrize(
    ("cards", "cpu", "fields", "expected"),
    [
        (1, 2, {}, [(1, 1)]),
        (1, 8, {}, [(1, 7)]),
        (1, 64, {}, [(1, 7)]),  # no more than 8 processes on a card
        (2, 16, {}, [(1, 7), (0, 8)]),
        (2, 3, {}, [(1, 1), (0, 1)]),
        (8, 16, {}, [(1, 1), *[(0, 2)] * 7]),
        (8, 64, {}, [(1, 7), *[(0, 8)] * 7]),
        (8, 16, {"servers": 8}, [(1, 1)] * 8),
        (2, 16, {"servers": 2}, [(1, 3)] * 2),
        (8, 4, {}, [(1, 0), *[(0, 1)] * 3, *[(0, 0)] * 4]),  # the CPUs are the limit
        (8, 16, {"max_concurrent": 7}, [(1, 0), *[(0, 1)] * 7]),
        (1, 8, {"trial": {"gpu": 1}}, [(0, 1)]),  # what a file says stays
        (2, 8, {"server": {"gpu": 1}}, [(1, 0), (0, 7)]),
        (2, 4, {"trial": {"gpu": 0}}, [(1, 0), (0, 0)]),
    ],
)
def test_servers_and_trials_share_the_cards(cards, cpu, fields, expected):
    assert table([gpus(cards, cpu)], **fields) == expected


def test_a_study_of_few_trials_spreads_them():
    assert table([gpus(8, 64)], num_trials=5) == [(1, 0), *[(0, 1)] * 5, (0, 0), (0, 0)]


def test_without_cards_nothing_changes():
    asked = resources(servers=2)
    shares = share_gpus([Node("a", 8), Node("b", 8)], asked, 2, 100)
    assert [share.gpu for share in (shares.server, shares.trial, shares.training)] == [0, 0, 0]
    assert shares.trial.device == asked.trial.device == "cpu"


def test_nodes_without_cards_are_left_out_unless_no_other_has_the_cpus():
    assert table([gpus(1, 4), Node("b", 64)]) == [(1, 3)]
    shares, cards = placed([gpus(1, 1), Node("b", 64)], resources())
    assert (shares.server.gpu, shares.trial.gpu, shares.training.gpu) == (0, 1, 0)  # the server has no CPU there
    assert cards == [CardUse("a", 0, 0, 1)]
    shares, _ = placed([gpus(2, 1), Node("b", 64)], resources(trial={"cpu": 4}))
    assert (shares.server.gpu, shares.trial.gpu) == (1, 0)


def test_the_generator_is_trained_on_a_whole_card():
    assert placed([gpus(4, 8)], resources())[0].training.gpu == 1
    assert placed([gpus(4, 8)], resources(training={"gpu": 0.5}))[0].training.gpu == 0.5
    alone = share_gpus([gpus(4, 8)], resources(), 0, 100)  # no stream: a server runs alone too
    assert (alone.server.gpu, alone.training.gpu) == (1, 1)


@pytest.mark.parametrize(
    ("card_bytes", "side", "expected"),
    [(None, 32, 8), (80 * GIB, 32, 8), (24 * GIB, 32, 6), (4 * GIB, 32, 2), (80 * GIB, 224, 5), (24 * GIB, 224, 2)],
)
def test_memory_bounds_the_processes_of_a_card(card_bytes, side, expected):
    assert processes_per_card(card_bytes, side) == expected


def test_idle_cards_are_named_with_a_remedy():
    nodes = [gpus(2, 8), gpus(4, 8, "b")]
    for fields, num_trials, words in (
        ({"trial": {"gpu": 0}}, 100, "resources.trial.gpu: auto"),
        ({"max_concurrent": 2}, 100, "resources.max_concurrent"),
        ({"trial": {"cpu": 4}}, 100, "resources.trial.cpu"),
        ({}, 2, "search.total"),
        ({"trial": {"gpu": 0.1, "cpu": 0.5}, "max_concurrent": 5}, 100, "resources.max_concurrent"),
    ):
        shares, cards = placed(nodes, resources(**fields), num_trials)
        idle = describe_idle(shares, cards, num_trials)
        assert idle is not None and "of b" in idle[0] and words in idle[1], fields
        assert "\n" not in describe_gpus(shares, cards, sharing=True)
    shares, cards = placed(nodes, resources())
    assert describe_idle(shares, cards, 100) is None


def test_on_any_cluster_nothing_is_over_allocated_and_no_card_idles_while_there_is_work():
    rng = random.Random(0)
    for _ in range(100):
        nodes = [gpus(rng.randint(0, 8), rng.randint(1, 32), f"n{index}") for index in range(rng.randint(1, 4))]
        num_cards = sum(len(node.cards) for node in nodes)
        servers, num_trials = rng.randint(1, max(1, min(4, num_cards))), rng.randint(1, 60)
        asked = resources(servers=servers)
        before = [(node.cpu, list(node.cards)) for node in nodes]
        shares, cards = placed(nodes, asked, num_trials)
        assert placed(nodes, asked, num_trials) == (shares, cards)
        assert [(node.cpu, node.cards) for node in nodes] == before
        for card in cards:
            assert card.servers * shares.server.num_gpus + card.trials * shares.trial.num_gpus <= 1
        for node in nodes:
            on_gpu = sum(card.servers + card.trials for card in cards if card.node == node.name)
            assert on_gpu <= node.cpu
        if not (shares.server.num_gpus and shares.trial.num_gpus):
            continue  # no card has the CPUs beside it
        assert find_capacity(nodes, shares, servers).max_concurrent >= 1
        most = sum(min(int(node.cpu), len(node.cards)) for node in nodes)  # a process of one CPU for each card
        assert sum(not card.is_idle for card in cards) == min(most, servers + num_trials)
