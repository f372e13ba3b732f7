import json

import pytest
from rich.console import Console

from gitdist.bench.report import Figure, Measurement, Verdict, as_json, verdict_table, write_result
from gitdist.bench.timing import Spread

SPREAD = Spread(0.96, 0.9, 1.1)


def cells(verdict: Verdict) -> list[str]:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(verdict_table([verdict]))
    row = next(line for line in captured.get().splitlines() if line.startswith("│"))
    return [cell.strip() for cell in row.strip("│").split("│")]


@pytest.mark.parametrize(
    ("rule", "target", "met", "told"),
    [
        (">=", 0.95, True, [">= 0.95", "yes"]),
        (">=", 1.0, False, [">= 1", "NO"]),  # though its greatest value does
        ("<=", 1.0, True, ["<= 1", "yes"]),
        ("<=", 0.95, False, ["<= 0.95", "NO"]),
        ("==", 0.96, True, ["== 0.96", "yes"]),
        (">=", None, None, ["none", ""]),
    ],
)
def test_the_median_meets_a_target_or_not(rule, target, met, told):
    verdict = Verdict(name="server / loop", spread=SPREAD, rule=rule, target=target)
    assert verdict.met is met
    assert cells(verdict) == ["server / loop", "0.96", "0.9", "1.1", *told]


def test_what_arithmetic_gives_stands_beside_the_ratio():
    verdict = Verdict(name="off / on", spread=SPREAD, rule=">=", target=5.0, arithmetic=4.125)
    assert cells(verdict) == ["off / on", "0.96", "0.9", "1.1", "4.12", ">= 5", "NO"]


def test_a_result_is_json_with_header_figures_and_ratios(tmp_path):
    found = Measurement(
        figures=(Figure(name="loop", spread=SPREAD, unit="images/s"),),
        verdicts=(Verdict(name="memory", spread=SPREAD, rule="<=", target=6.0, unit="GiB"),),
        notes=("no GPU",),
    )
    write_result(tmp_path / "bench" / "x.json", as_json("x", {"cores": 2}, found))
    assert json.loads((tmp_path / "bench" / "x.json").read_text()) == {
        "benchmark": "x",
        "header": {"cores": 2},
        "figures": [{"name": "loop", "median": 0.96, "lowest": 0.9, "highest": 1.1, "unit": "images/s"}],
        "ratios": [
            {
                "name": "memory",
                "median": 0.96,
                "lowest": 0.9,
                "highest": 1.1,
                "rule": "<=",
                "target": 6.0,
                "met": True,
                "unit": "GiB",
                "arithmetic": None,
            }
        ],
        "notes": ["no GPU"],
    }
