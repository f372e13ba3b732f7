"""What a study gets of a cluster's nodes, and what it is refused for."""

import pytest

from gitdist.errors import StudyError
from gitdist.spec import ResourcesSpec
from gitdist.study.scheduling.packing import Node, capacity_beside, check_fits_alone, find_capacity


def resources(**fields) -> ResourcesSpec:
    return ResourcesSpec.model_validate(fields)


def gpus(name: str, cards: int, cpu: float = 8) -> Node:
    return Node(name, cpu, [1.0] * cards)


def test_servers_are_spread_and_trials_fill_the_rest():
    nodes = [gpus("a", 1), gpus("b", 1), Node("c", 4)]
    room = find_capacity(nodes, resources(server={"gpu": 0.5}, trial={"gpu": 0.25}), num_servers=2)
    assert room.max_concurrent == 4  # two beside each server; c has no card
    assert room.note == (
        "4 trial(s) at once, beside 2 generator server(s): a 1 server(s) and 2 trial(s), b 1 server(s) and 2 trial(s)"
    )
    assert nodes == [gpus("a", 1), gpus("b", 1), Node("c", 4)]


def test_a_part_of_a_card_lies_on_one_card():
    share = {"cpu": 0.1, "gpu": 0.6}
    assert find_capacity([gpus("a", 3)], resources(trial=share), num_servers=0).max_concurrent == 3  # not int(3 / 0.6)
    assert find_capacity([gpus("a", 3)], resources(trial={"gpu": 2}), num_servers=0).max_concurrent == 1
    third = resources(trial={"cpu": 0.1, "gpu": 0.1})
    assert find_capacity([gpus("a", 1)], third, num_servers=0).max_concurrent == 10  # sums of tenths


def test_servers_lie_where_they_cost_the_fewest_trials():
    nodes = [gpus("gpu", 1, cpu=4), Node("cpu", 16)]
    assert find_capacity(nodes, resources(trial={"cpu": 4, "gpu": 1}), num_servers=1).max_concurrent == 1
    assert find_capacity(nodes, resources(trial={"gpu": 0.25}), num_servers=1).note == (
        "4 trial(s) at once, beside 1 generator server(s): gpu 0 server(s) and 4 trial(s), "
        "cpu 1 server(s) and 0 trial(s)"
    )


def test_room_beside_servers_is_counted_where_they_are():
    nodes, asked = [gpus("b", 2), gpus("a", 1, cpu=16)], resources(trial={"cpu": 8, "gpu": 1})
    assert find_capacity(nodes, asked, num_servers=1).max_concurrent == 2
    assert capacity_beside(nodes, asked, ["b"]).max_concurrent == 1
    assert capacity_beside(nodes, asked, ["a"]) == find_capacity(nodes, asked, num_servers=1)
    large = resources(trial={"cpu": 16, "gpu": 1})
    assert capacity_beside(nodes, large, ["b"]) == find_capacity(nodes, large, num_servers=1)
    with pytest.raises(StudyError) as refused:
        capacity_beside(nodes, large, ["a"])
    assert str(refused.value) == (
        "resources: a trial of 16 CPU and 1 GPU fits no node beside the server(s) of 1 CPU that Ray has placed on a; "
        "lower both until they fit on one node"
    )
    grown = resources(trial={"cpu": 16, "gpu": 1}, max_concurrent=2, autoscaling=True)
    assert "now 1 and 0 fit" in capacity_beside(nodes, grown, ["a"]).note
    assert nodes == [gpus("b", 2), gpus("a", 1, cpu=16)]


def test_a_number_of_trials_is_an_upper_bound():
    assert find_capacity([Node("a", 4)], resources(max_concurrent=3), num_servers=0).max_concurrent == 3
    assert find_capacity([Node("a", 4)], resources(max_concurrent=9), num_servers=0).max_concurrent == 4


def test_a_study_that_never_fits_is_told_why():
    grows = "or on a cluster that adds nodes, set resources.autoscaling: true and resources.max_concurrent"
    with pytest.raises(StudyError) as no_gpu:
        find_capacity([Node("a", 4), Node("b", 2)], resources(trial={"gpu": 0.5}), num_servers=1)
    assert str(no_gpu.value) == (
        "resources.trial asks for 1 CPU and 0.5 GPU on one node, but the largest node has 4 CPU and 0 GPU; "
        f"lower resources.trial, {grows}"
    )
    with pytest.raises(StudyError) as too_large:  # though the cluster has four CPUs
        find_capacity([Node("a", 2), Node("b", 2)], resources(trial={"cpu": 3}), num_servers=0)
    assert str(too_large.value) == (
        "resources.trial asks for 3 CPU on one node, but the largest node has 2 CPU and 0 GPU; "
        f"lower resources.trial, {grows}"
    )
    with pytest.raises(StudyError) as too_many:
        find_capacity([Node("a", 1), Node("b", 1)], resources(), num_servers=2)
    assert str(too_many.value) == (
        "resources: 2 server(s) of 1 CPU and one trial of 1 CPU must fit the cluster together, but its nodes have "
        f"a 1 CPU and 0 GPU, b 1 CPU and 0 GPU; lower resources.servers or the share of each, {grows}"
    )


def test_a_cluster_that_adds_nodes_is_waited_for():
    grown = resources(trial={"gpu": 1}, max_concurrent=6, autoscaling=True)
    room = find_capacity([Node("head", 2)], grown, num_servers=1)
    assert room.max_concurrent == 6
    assert room.note == (
        "6 trial(s) at once, beside 1 generator server(s); now 1 and 0 fit, the others wait for more nodes"
    )
    assert "now" not in find_capacity([gpus("a", 8)], grown, num_servers=1).note
    check_fits_alone([], grown, "trial", "train")


def test_a_cluster_that_adds_nodes_needs_a_bound():
    with pytest.raises(ValueError, match="autoscaling needs max_concurrent"):
        resources(autoscaling=True)


def test_what_runs_alone_must_fit_by_itself():
    nodes = [Node("a", 4), gpus("b", 1, cpu=2)]
    check_fits_alone(nodes, resources(server={"cpu": 4}), "server", "transform images")
    with pytest.raises(StudyError) as refused:
        check_fits_alone(nodes, resources(training={"cpu": 4, "gpu": 1}), "training", "train the generator")
    assert str(refused.value) == (
        "resources.training asks for 4 CPU and 1 GPU to train the generator, but the largest nodes have "
        "4 CPU and 0 GPU, and 2 CPU and 1 GPU; lower resources.training"
    )
