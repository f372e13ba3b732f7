import json

import pytest

from gitdist.errors import DiskError
from gitdist.study.files.json_lines import JsonLinesFile, read_lines
from gitdist.study.files.rows import open_rows, parse_rows, read_rows
from gitdist.trial.epoch_row import EpochRow
from tests.disks import fill, small_disk
from tests.epoch_rows import epoch_row

FIRST, SECOND, THIRD = (epoch_row(epoch) for epoch in (1, 2, 3))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def line(row: EpochRow) -> bytes:
    return json.dumps(row.to_json()).encode() + b"\n"


def test_rows_come_back_as_they_were_written(path):
    evaluated = epoch_row(
        metrics={"val/ekld": 0.1 + 0.2, "val/few_accuracy": 1e-300},
        per_class={"accuracy_per_class": [0.5, None]},
        evaluating_s=0.5,
        waiting_s=0.25,
        draws=3,
        generated=2,
        ended_at=7.5,
        trained_by="study/0",
    )
    with open_rows(path, []) as file:
        for row in (evaluated, SECOND):
            file.append(row.to_json())
    assert read_rows(path) == [evaluated, SECOND]
    assert read_lines(path)[0]["val/accuracy_per_class"] == [0.5, None]


@pytest.mark.parametrize("torn", [b'{"epoch":2,"val/ek', b"\0\0\0\0", b"\xff\xfe\n", b"2\n"])
def test_rows_are_read_up_to_the_damage(path, torn):
    path.write_bytes(line(FIRST) + torn + b"\n" + line(THIRD))
    assert parse_rows(path) == ([FIRST], None)


@pytest.mark.parametrize("field", ["epoch", "lr", "train/loss", "train/accuracy", "draws", "train_s", "evaluating_s"])
@pytest.mark.parametrize("value", ["text", None, True])
def test_a_row_without_a_number_that_every_row_has_is_told(path, field, value):
    second = json.dumps({**SECOND.to_json(), field: value}).encode() + b"\n"
    path.write_bytes(line(FIRST) + second + line(THIRD))
    rows, damage = parse_rows(path)
    assert rows == [FIRST] and (damage.path, damage.field, damage.line) == (path, field, 2)


def test_going_on_starts_from_the_checkpoints_rows_and_repeats_none(path):
    path.write_bytes(line(FIRST) + line(SECOND) + b'{"epoch":3,"torn')
    with open_rows(path, [FIRST]) as file:
        file.append(SECOND.to_json())
    assert read_rows(path) == [FIRST, SECOND]


def test_no_file_means_no_rows(path):
    assert read_rows(path) == []


def test_a_superseded_writer_appends_to_the_file_that_was_replaced(path):
    with JsonLinesFile(path) as old, JsonLinesFile(path, [{"epoch": 1}]) as new:
        old.append({"epoch": 1, "from": "the dead"})
        new.append({"epoch": 2})
    assert read_lines(path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_log_that_is_reopened_keeps_its_lines_after_a_damaged_one_and_loses_a_torn_end(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step":1}\n\xff\n{"step":3}\n{"st')
    with JsonLinesFile.reopen(path) as file:
        file.append({"step": 4})
    assert path.read_bytes() == b'{"step":1}\n\xff\n{"step":3}\n{"step":4}\n'
    assert read_lines(path) == [{"step": 1}, {"step": 3}, {"step": 4}]


def test_a_row_that_a_full_disk_does_not_take_leaves_the_rows_before_it_whole(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk, JsonLinesFile(disk / "rows.jsonl", [{"epoch": 1}]) as file:
        fill(disk)
        with pytest.raises(DiskError, match="rows.jsonl .* No space"):
            file.append({"epoch": 2, "long": "x" * 10_000})
        assert (disk / "rows.jsonl").read_text() == '{"epoch":1}\n'
