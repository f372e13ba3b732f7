from io import StringIO

from rich.console import Console

from gitdist.cli.tables import summary_tables
from gitdist.report.metrics import METRICS

METHODS = ("GIT [all classes]", "DRS [/few]")


def test_names_that_look_like_markup_are_shown_as_they_are():
    chosen = [
        {
            "number": number,
            "params": {"method": method},
            "val": {f"val/{metric}": 0.5 for metric in METRICS},
            "test": {f"test/{metric}": 0.5 for metric in METRICS},
        }
        for number, method in enumerate(METHODS)
    ]
    summary = {
        "study": "s",
        "objectives": ["val/balanced_accuracy", "val/ekld"],
        "pareto": chosen,
        "best": chosen[1],
        "trials": {"finished": 2},
        "ekld_under": "nuisance",
        **dict.fromkeys(("generated_images", "trained_epochs", "shared_epochs"), 0),
        **dict.fromkeys(("wall_s", "waiting_s", "training_s", "saved_s"), 0.0),
    }
    console = Console(file=StringIO(), width=200)
    console.print(*summary_tables(summary))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(f" {method} " in told for method in METHODS) and "s: trial 1 (method DRS [/few])" in told
