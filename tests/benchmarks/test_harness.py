import json

import pytest
from harness import Figure, alternate, quotients, table
from rich.console import Console


def test_sides_take_turns_and_the_warm_up_does_not_count():
    turns = []

    def side(name):
        return lambda: turns.append(name) or float(len(turns))

    assert alternate({"a": side("a"), "b": side("b")}, repeats=2) == {"a": [4.0, 5.0], "b": [3.0, 6.0]}
    assert turns == ["a", "b", "b", "a", "a", "b"]  # each round begins with another side


def test_ratios_are_those_of_each_repeat():
    assert quotients([6.0, 1.0], [3.0, 4.0]) == [2.0, 0.25]
    with pytest.raises(ValueError):
        quotients([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("values", "median"), [([3.0], 3), ([5.0, 1.0, 2.0], 2), ([4.0, 1.0, 2.0, 9.0], 3)])
def test_a_figure_is_the_median_of_its_repeats(values, median):
    assert Figure(name="a", values=values).median == median


@pytest.mark.parametrize(
    ("rule", "target", "met", "shown"),
    [
        (">=", 0.95, True, [">= 0.95", "yes"]),
        (">=", 1.0, False, [">= 1", "NO"]),  # although its highest value does
        ("<=", 1.0, True, ["<= 1", "yes"]),
        ("<=", 0.95, False, ["<= 0.95", "NO"]),
        ("==", 0.96, True, ["== 0.96", "yes"]),
        (">=", None, None, ["", ""]),
    ],
)
def test_the_median_meets_a_target_or_not(rule, target, met, shown):
    figure = Figure(name="server / loop", values=[0.9, 0.96, 1.1], rule=rule, target=target)
    assert figure.met is met
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table("title", [figure]))
    row = next(line for line in captured.get().splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["server / loop", "0.96", "0.9", "1.1", "", *shown]


def test_a_figure_is_json():
    plain = {"name": "memory", "median": 5.0, "lowest": 4.0, "highest": 7.0, "unit": "GiB"}
    values = [4.0, 7.0, 5.0]
    assert json.loads(json.dumps(Figure(name="memory", values=values, unit="GiB").as_json())) == plain
    judged = Figure(name="memory", values=values, unit="GiB", rule="<=", target=6.0).as_json()
    assert judged == plain | {"rule": "<=", "target": 6.0, "met": True}
