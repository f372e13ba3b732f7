import json

import pytest
import torch

from gitdist.study.files.rows import open_rows, read_rows, repair_rows
from gitdist.trial.checkpoint import Checkpoint, save_checkpoint
from tests.epoch_rows import epoch_row


def rows_to(epoch):
    return [epoch_row(number, metrics={"val/ekld": 1 / number}) for number in range(1, epoch + 1)]


def checkpoint(directory, epoch):
    cursors = torch.zeros(1, dtype=torch.int64)
    content = Checkpoint(epoch=epoch, model={}, optimizer={}, cursors=cursors, rows=rows_to(epoch))
    return save_checkpoint(directory, content)


@pytest.fixture
def trial(tmp_path):
    """An ended trial of 4 epochs with its two newest checkpoints."""
    open_rows(tmp_path / "rows.jsonl", rows_to(4)).close()
    for epoch in (3, 4):
        checkpoint(tmp_path, epoch)
    return tmp_path


def torn(lines):
    return b"".join(lines)[:-5]


def damaged_in_the_middle(lines):
    return b"".join([lines[0], b"\xff" + lines[1], *lines[2:]])


def without_a_middle_line(lines):
    return b"".join([lines[0], *lines[2:]])


def short(lines):
    return lines[0]


def empty(lines):
    return b""


@pytest.mark.parametrize("damage", [torn, damaged_in_the_middle, without_a_middle_line, short, empty])
def test_damaged_rows_are_written_anew_from_the_checkpoint(trial, damage):
    file = trial / "rows.jsonl"
    whole = file.read_bytes()
    file.write_bytes(damage(whole.splitlines(keepends=True)))
    assert repair_rows(trial) == rows_to(4)
    assert file.read_bytes() == whole


def test_a_missing_file_is_written_from_the_checkpoint(trial):
    (trial / "rows.jsonl").unlink()
    assert repair_rows(trial) == read_rows(trial / "rows.jsonl") == rows_to(4)


def test_a_whole_file_is_left_alone_and_no_checkpoint_is_read(trial):
    newest = max(trial.glob("epoch-*"))
    newest.write_bytes(b"reading would remove this damaged one")
    before = (trial / "rows.jsonl").stat()
    assert repair_rows(trial) == rows_to(4)
    after = (trial / "rows.jsonl").stat()
    assert newest.exists() and (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_whole_rows_beyond_the_newest_whole_checkpoint_are_kept(trial):
    max(trial.glob("epoch-*")).write_bytes(b"damaged")
    with open(trial / "rows.jsonl", "a") as file:
        file.write('{"epoch":5,"to')
    assert repair_rows(trial) == read_rows(trial / "rows.jsonl") == rows_to(4)


def test_rows_without_a_checkpoint_are_kept_up_to_the_damage(tmp_path):
    assert repair_rows(tmp_path) == [] and not (tmp_path / "rows.jsonl").exists()
    first, third = (json.dumps(epoch_row(epoch).to_json(), separators=(",", ":")) for epoch in (1, 3))
    (tmp_path / "rows.jsonl").write_text(f'{first}\n{{"epo\n{third}\n')
    assert repair_rows(tmp_path) == [epoch_row(1)]
    assert (tmp_path / "rows.jsonl").read_text() == f"{first}\n"


def test_a_row_without_a_field_is_damaged(trial):
    file = trial / "rows.jsonl"
    whole = file.read_text()
    file.write_text(whole.replace('"train_s"', '"other"', 1))
    assert read_rows(file) == []
    assert repair_rows(trial) == rows_to(4)
    assert file.read_text() == whole
