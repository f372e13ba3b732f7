from io import StringIO
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from gitdist.cli.console import print_table
from gitdist.cli.tables import summary_tables
from gitdist.report.metrics import METRICS

METHODS = ("GIT [all classes]", "DRS [/few]")


def summary_of(**params: Any) -> dict[str, Any]:
    chosen = [
        {
            "number": number,
            "params": {"method": method, **params},
            "val": {f"val/{metric}": 0.5 for metric in METRICS},
            "test": {f"test/{metric}": 0.5 for metric in METRICS},
        }
        for number, method in enumerate(METHODS)
    ]
    return {
        "study": "s",
        "objectives": ["val/balanced_accuracy", "val/ekld"],
        "pareto": chosen,
        "best": chosen[1],
        "trials": {"finished": 2},
        "ekld_under": "nuisance",
        **dict.fromkeys(("generated_images", "trained_epochs", "shared_epochs"), 0),
        **dict.fromkeys(("wall_s", "waiting_s", "training_s", "saved_s"), 0.0),
    }


def printed(summary: dict[str, Any], width: int) -> str:
    console = Console(file=StringIO(), width=width)
    for table in summary_tables(summary):
        print_table(console, table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    for width in (200, 60):
        told = " ".join(printed(summary_of(), width).split())
        assert all(f" {method}" in told for method in METHODS) and "s: trial 1 (method DRS [/few])" in told


@pytest.mark.parametrize("width", [200, 80, 60, 40])
@pytest.mark.parametrize("num_fields", [1, 12])
def test_nothing_is_cut_and_a_narrow_terminal_has_lists(width: int, num_fields: int) -> None:
    params = {f"searched_field_{number}": 0.1234 + number for number in range(num_fields)}
    told = printed(summary_of(**params), width)
    assert "…" not in told and all(cell_len(line) <= width for line in told.splitlines())
    words = told.replace("(", " ").replace(")", " ").replace(",", " ").split()
    for name, value in params.items():
        assert name in words and f"{value:.4g}" in words
    assert ("┃" in told) == (width > 60)
