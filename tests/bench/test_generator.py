import pytest

from gitdist.bench.generator import loaded_share, numbers_with_room, own_cards
from gitdist.errors import StudyError
from gitdist.spec import Share
from gitdist.study.scheduling.packing import Node


@pytest.mark.parametrize(
    ("share", "cards", "numbers", "apart"),
    [(0.3, 1, (1, 2), False), (0.5, 1, (1, 2), False), (0.6, 1, (1,), True), (1.0, 2, (1, 2), True)],
)
def test_two_servers_are_apart_only_where_one_fills_most_of_a_gpu(share, cards, numbers, apart):
    server = Share(cpu=1, gpu=share)
    assert numbers_with_room([Node("here", 8, [1.0] * cards)], server) == numbers
    assert own_cards(server) is apart
    one, two = (loaded_share(server, num_servers).gpu for num_servers in (1, 2))
    if 2 in numbers:  # all three are loaded at once, on each card no more than it is
        assert one + two <= 1 if apart else one + 2 * two <= 1


def test_no_room_for_a_server_is_one_line():
    with pytest.raises(StudyError, match="1 CPU and 0.3 GPU .* the largest node has 8 CPU and 0 GPU; lower") as refused:
        numbers_with_room([Node("here", 8)], Share(cpu=1, gpu=0.3))
    assert "\n" not in str(refused.value)


def test_servers_without_a_gpu_take_none():
    assert [loaded_share(Share(cpu=2), num_servers) for num_servers in (1, 2)] == [Share(cpu=2)] * 2
