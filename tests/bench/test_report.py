import json

import pytest

from gitdist.bench.report import Figure, Measurement, Verdict, as_json, verdict_line, write_result
from gitdist.bench.timing import Spread

SPREAD = Spread(0.96, 0.9, 1.1)


@pytest.mark.parametrize(
    ("rule", "target", "met", "told"),
    [
        (">=", 0.95, True, "target >= 0.95: met"),
        (">=", 1.0, False, "target >= 1: NOT met"),  # though its greatest value does
        ("<=", 1.0, True, "target <= 1: met"),
        ("<=", 0.95, False, "NOT met"),
        ("==", 0.96, True, ": met"),
        (">=", None, None, "no target for these settings"),
    ],
)
def test_the_median_meets_a_target_or_not(rule, target, met, told):
    verdict = Verdict(name="server / loop", spread=SPREAD, rule=rule, target=target)
    assert verdict.met is met
    line = verdict_line(verdict)
    assert line.startswith("server / loop: 0.96 (0.9 to 1.1); ") and line.endswith(told)


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
            }
        ],
        "notes": ["no GPU"],
    }
