from gitdist.study.rows import RowsFile, read_rows


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    file = RowsFile(path, [])
    rows = [{"epoch": 1, "val/ekld": 0.1 + 0.2}, {"epoch": 2, "val/ekld": 1e-300}]
    for row in rows:
        file.append(row)
    assert read_rows(path) == rows


def test_a_torn_last_line_is_left_out_when_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"epoch":1}\n{"epoch":2,"val/ek')
    assert read_rows(path) == [{"epoch": 1}]


def test_going_on_starts_from_the_checkpoints_rows_and_repeats_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"epoch":1}\n{"epoch":2}\n{"epoch":3,"torn')
    RowsFile(path, [{"epoch": 1}]).append({"epoch": 2})
    assert [row["epoch"] for row in read_rows(path)] == [1, 2]


def test_no_file_means_no_rows(tmp_path):
    assert read_rows(tmp_path / "rows.jsonl") == []
