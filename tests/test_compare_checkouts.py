import copy
from typing import Any

import pytest

from tests.compare_checkouts import LEFT_OUT, SMALL, differences, flatten, small_file

RESULTS: dict[str, Any] = {
    "files": {
        "trials/0000/rows.jsonl": [
            {"epoch": 1, "val/ekld": 0.25, "val/few_accuracy": float("nan"), "train_s": 1.5, "ended_at": 7.0},
            {"epoch": 2, "val/ekld": 0.125, "val/few_accuracy": None, "train_s": 1.25, "ended_at": 8.0},
        ],
        "summary.json": {"wall_s": 3.0, "generated_images": 16, "trials": {"finished": 1}},
    },
    "ledger": {"study": {"trials": [{"state": "COMPLETE", "params": {"threshold": 20}}]}, "owners": {"trials": [1]}},
    "mlflow": {"trial 0000": {"status": "FINISHED", "metrics": {"waiting_s": [{"step": 1, "value": 0.1}]}}},
    "report": {"trials.csv": [["small", "0.4909090909090909"]]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A copy of the results with one value changed."""
    results = copy.deepcopy(RESULTS)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(":")]
    inner = results
    for part in parents:
        inner = inner[part]
    inner[last] = value
    return results


def test_equal_results_have_no_differences():
    lines, compared = differences("small", RESULTS, copy.deepcopy(RESULTS))
    assert lines == []
    assert compared == 14


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("files:trials/0000/rows.jsonl:1:val/ekld", 0.12500000000000003, "0.125 -> 0.12500000000000003"),
        ("files:trials/0000/rows.jsonl:0:epoch", 1.0, "1 -> 1.0"),
        ("files:trials/0000/rows.jsonl:0:new", 3, "missing -> 3"),
        ("files:summary.json:generated_images", 17, "16 -> 17"),
        ("ledger:study:trials:0:state", "FAIL", "'COMPLETE' -> 'FAIL'"),
        ("mlflow:trial 0000:metrics:waiting_s:0:step", 2, "1 -> 2"),
        ("report:trials.csv:0:1", "0.4909090909", "0.490909090909 -> 0.4909090909"),
    ],
)
def test_each_changed_value_is_one_line(path, value, line):
    lines, _ = differences("small", RESULTS, changed(path, value))
    assert lines == [f"small/{path.replace(':', '/')}: {line}"]


def test_missing_values_are_differences():
    lines, _ = differences("small", RESULTS, changed("files:summary.json", {}))
    assert "small/files/summary.json/generated_images: 16 -> missing" in lines


@pytest.mark.parametrize(
    ("title", "path", "value"),
    [
        ("small", "files:trials/0000/rows.jsonl:0:train_s", 9.0),
        ("small", "files:trials/0000/rows.jsonl:0:ended_at", 9.0),
        ("small", "files:summary.json:wall_s", 9.0),
        ("small", "ledger:owners:trials", [1, 2]),
        ("small", "mlflow:trial 0000:metrics:waiting_s:0:value", 9.0),
        ("small", "report:trials.csv:0:1", "0.490909090909091"),
        ("killed", "files:summary.json:generated_images", 32),
    ],
)
def test_what_varies_between_equal_runs_is_left_out(title, path, value):
    assert differences(title, RESULTS, changed(path, value))[0] == []


def test_every_left_out_pattern_gives_its_reason():
    assert all(LEFT_OUT.values())


def test_leaves_keep_empty_values():
    assert dict(flatten({"a": [], "b": {"c": {}}}, "small")) == {"small/a": [], "small/b/c": {}}


def test_the_small_study_is_found(tmp_path):
    assert SMALL.exists() and "search:" in small_file(tmp_path).read_text()
