import numpy as np
import pytest

from gitdist.data.longtail import class_sizes, profile_sizes, size_groups, suggested_threshold
from gitdist.errors import SpecError
from gitdist.spec import GroupsSpec, ProfileSpec

K49 = ProfileSpec(kind="zipf", largest=4828)


def names(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def test_zipf_sizes_are_those_of_the_kuzushiji_sets() -> None:
    sizes = profile_sizes(K49, [4800] * 49)
    assert sizes[:4] == [4828, 1207, 536, 301]
    assert sizes[-1] == min(sizes) == 5
    assert sum(sizes) == 7_864


@pytest.mark.parametrize(
    ("num_classes", "largest", "smallest", "total"), [(10, 5000, 50, 12_406), (100, 500, 5, 10_847)]
)
def test_exponential_sizes_are_those_of_the_cifar_sets(
    num_classes: int, largest: int, smallest: int, total: int
) -> None:
    sizes = profile_sizes(ProfileSpec(kind="exponential"), [largest] * num_classes)
    assert (sizes[0], sizes[-1], sum(sizes)) == (largest, smallest, total)


@pytest.mark.parametrize(("factor", "smallest"), [(0.1, 500), (0.02, 100), (0.01, 50), (0.005, 25)])
def test_exponential_reaches_a_whole_smallest_size_in_spite_of_binary_fractions(factor: float, smallest: int) -> None:
    for num_classes in range(2, 120):
        sizes = profile_sizes(ProfileSpec(kind="exponential", factor=factor), [5000] * num_classes)
        assert sizes[-1] == smallest
        assert sizes == sorted(sizes, reverse=True)


def test_step_makes_the_last_share_of_the_classes_small() -> None:
    assert profile_sizes(ProfileSpec(kind="step", factor=0.29, minority=0.4), [100] * 5) == [100, 100, 100, 29, 29]


def test_an_unknown_kind_raises() -> None:
    with pytest.raises(AssertionError, match="pareto"):
        profile_sizes(ProfileSpec().model_copy(update={"kind": "pareto"}), [5, 4])


def test_no_class_is_empty() -> None:
    assert min(profile_sizes(ProfileSpec(kind="exponential", factor=0.001), [50] * 4)) == 1
    assert min(profile_sizes(ProfileSpec(kind="step", factor=0.001), [50] * 4)) == 1


def test_without_a_profile_every_class_keeps_what_it_has_up_to_the_largest() -> None:
    assert profile_sizes(ProfileSpec(), [7, 9, 8]) == [7, 9, 8]
    assert profile_sizes(ProfileSpec(largest=8), [7, 9, 8]) == [7, 8, 8]


def test_a_missing_largest_is_the_largest_class() -> None:
    assert max(profile_sizes(ProfileSpec(kind="zipf"), [40, 900, 300])) == 900


def test_each_version_shuffles_the_zipf_ranks_its_own_way() -> None:
    versions = [class_sizes(K49, [4800] * 49, version) for version in range(30)]
    assert {tuple(sorted(sizes)) for sizes in versions} == {tuple(sorted(profile_sizes(K49, [4800] * 49)))}
    assert {sum(sizes) for sizes in versions} == {7_864}
    assert len({tuple(sizes) for sizes in versions}) == 30
    assert len({sizes.index(4828) for sizes in versions}) > 10
    assert class_sizes(K49, [4800] * 49, 7) == versions[7]


def test_power_sizes_fall_with_the_official_sizes() -> None:
    available = [150, 2000, 1500, 2000, 40, 3]
    sizes = class_sizes(ProfileSpec(kind="power", smallest=100), available, 7)
    expected = [max(int(2000 / rank**1.8), 100) for rank in (4, 1, 3, 2, 5, 6)]
    assert sizes == expected == [164, 2000, 276, 574, 110, 100]
    assert class_sizes(ProfileSpec(kind="power", largest=500), available, 0)[1:4] == [500, 69, 143]


def test_the_exponent_is_that_of_the_kind_unless_it_is_given() -> None:
    kinds = [{}, {"kind": "zipf"}, {"kind": "power"}, {"kind": "power", "exponent": None}, {"exponent": 1.5}]
    assert [ProfileSpec.model_validate(kind).exponent for kind in kinds] == [2.0, 2.0, 1.8, 1.8, 1.5]


def test_exponential_and_step_sizes_stay_in_class_order_in_every_version() -> None:
    for kind in ("exponential", "step"):
        sizes = class_sizes(ProfileSpec.model_validate({"kind": kind}), [5000] * 10, 3)
        assert sizes == sorted(sizes, reverse=True)


def test_auto_groups_take_100_and_20_where_no_group_is_empty() -> None:
    groups = size_groups([500, 100, 101, 20, 19, 5], "auto")
    assert (names(groups.many), names(groups.medium), names(groups.few)) == ([0, 2], [1, 3], [4, 5])
    assert "100" in groups.rule and "20" in groups.rule


def test_auto_groups_are_thirds_where_a_group_would_be_empty() -> None:
    groups = size_groups([48, 1207, 134, 75, 4828, 193, 98, 536, 59, 301], "auto")
    assert (names(groups.many), names(groups.few)) == ([1, 4, 7], [0, 3, 8])
    assert "thirds" in groups.rule and "536" in groups.rule and "75" in groups.rule


@pytest.mark.parametrize("sizes", [[9, 5, 5, 5, 5, 5], [9, 9, 9, 9, 9, 5], [5, 5, 5], [5, 4], [5], [30, 20, 10]])
def test_thirds_hold_every_class_once_and_keep_equal_sizes_together(sizes: list[int]) -> None:
    groups = size_groups(sizes, "auto")
    masks = np.stack(list(groups.as_dict().values()))
    assert (masks.sum(axis=0) == 1).all()
    for size in set(sizes):
        assert len({tuple(column) for column, own in zip(masks.T, sizes, strict=True) if own == size}) == 1


def test_classes_of_one_size_are_not_called_few_shot() -> None:
    assert not size_groups([50] * 6, "auto").few.any()


def test_given_bounds_hold_even_where_a_group_is_empty() -> None:
    groups = size_groups([50, 40, 30], GroupsSpec(many=45, few=10))
    assert (names(groups.many), names(groups.medium), names(groups.few)) == ([0], [1, 2], [])


def test_crossing_bounds_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"groups.few = 60 .* groups.many = 20") as caught:
        size_groups([50, 40, 30], GroupsSpec(many=20, few=60))
    assert "\n" not in str(caught.value)


def test_the_suggested_threshold_is_above_every_class_that_is_not_many_shot() -> None:
    sizes = np.array([500, 100, 101, 20, 19, 5])
    assert suggested_threshold(sizes, size_groups(sizes.tolist(), "auto")) == 101
    assert suggested_threshold(sizes, size_groups(sizes.tolist(), GroupsSpec(many=4, few=2))) is None
