import pytest
import torch

from gitdist.trial.checkpoint import Checkpoint, completed_rows, last_epoch, load_checkpoint, save_checkpoint


def checkpoint_of(epoch):
    weights = torch.full((3, 2), float(epoch))
    return Checkpoint(
        epoch=epoch,
        model={"weight": weights, "norm.running_mean": weights[0]},
        optimizer={"state": {0: {"momentum_buffer": weights}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        cursors=torch.tensor([epoch, 0]),
        rows=[{"epoch": number, "val/accuracy_per_class": [0.5, 1.0]} for number in range(1, epoch + 1)],
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path, checkpoint_of(3))

    found = load_checkpoint(tmp_path)

    assert found.epoch == last_epoch(tmp_path) == 3
    assert torch.equal(found.model["norm.running_mean"], torch.tensor([3.0, 3.0]))
    assert torch.equal(found.optimizer["state"][0]["momentum_buffer"], torch.full((3, 2), 3.0))
    assert found.cursors.tolist() == [3, 0]
    assert found.rows == completed_rows(tmp_path) == checkpoint_of(3).rows


def test_a_directory_without_checkpoints_has_none(tmp_path):
    assert load_checkpoint(tmp_path / "nowhere") is None
    assert last_epoch(tmp_path) == 0 and completed_rows(tmp_path) == []


def test_the_newest_two_are_kept(tmp_path):
    files = [save_checkpoint(tmp_path, checkpoint_of(epoch)) for epoch in (8, 9, 10, 11)]

    assert set(tmp_path.iterdir()) == set(files[2:])


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: flip(content)])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    save_checkpoint(tmp_path, checkpoint_of(1))
    newest = save_checkpoint(tmp_path, checkpoint_of(2))
    newest.write_bytes(damage(newest.read_bytes()))

    assert load_checkpoint(tmp_path).epoch == 1


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_saving_anew_removes_what_a_crash_and_a_damaged_checkpoint_left(tmp_path):
    first = save_checkpoint(tmp_path, checkpoint_of(1))
    damaged = save_checkpoint(tmp_path, checkpoint_of(2))
    damaged.write_bytes(b"")
    (tmp_path / ".epoch-000002-x.pt.77.tmp").write_bytes(b"half")
    changed = checkpoint_of(2)
    changed.rows[1]["train_s"] = 1.5

    second = save_checkpoint(tmp_path, changed)

    assert set(tmp_path.iterdir()) == {first, second}


def test_other_files_of_the_directory_are_left_alone(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint_of(epoch))

    assert (tmp_path / "rows.jsonl").exists()
