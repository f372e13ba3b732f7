import pytest

from gitdist.errors import DiskError
from gitdist.study.files.rows import RowsFile, read_rows
from tests.disks import fill, small_disk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def test_rows_come_back_as_they_were_written(path):
    rows = [{"epoch": 1, "val/ekld": 0.1 + 0.2}, {"epoch": 2, "val/ekld": 1e-300}]
    with RowsFile(path, []) as file:
        for row in rows:
            file.append(row)
    assert read_rows(path) == rows


@pytest.mark.parametrize("torn", [b'{"epoch":2,"val/ek', b"\0\0\0\0", b"\xff\xfe\n", b"2\n"])
def test_rows_are_read_up_to_the_damage(path, torn):
    path.write_bytes(b'{"epoch":1}\n' + torn + b'\n{"epoch":3}\n')
    assert read_rows(path) == [{"epoch": 1}]


def test_going_on_starts_from_the_checkpoints_rows_and_repeats_none(path):
    path.write_text('{"epoch":1}\n{"epoch":2}\n{"epoch":3,"torn')
    with RowsFile(path, [{"epoch": 1}]) as file:
        file.append({"epoch": 2})
    assert [row["epoch"] for row in read_rows(path)] == [1, 2]


def test_no_file_means_no_rows(path):
    assert read_rows(path) == []


def test_a_superseded_writer_appends_to_the_file_that_was_replaced(path):
    with RowsFile(path, []) as old, RowsFile(path, [{"epoch": 1}]) as new:
        old.append({"epoch": 1, "from": "the dead"})
        new.append({"epoch": 2})
    assert read_rows(path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_row_that_a_full_disk_does_not_take_leaves_the_rows_before_it_whole(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk, RowsFile(disk / "rows.jsonl", [{"epoch": 1}]) as file:
        fill(disk)
        with pytest.raises(DiskError, match="rows.jsonl .* No space"):
            file.append({"epoch": 2, "long": "x" * 10_000})
        assert (disk / "rows.jsonl").read_text() == '{"epoch":1}\n'
