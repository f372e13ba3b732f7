import hashlib
import io

import pytest
import torch

from gitdist.errors import StoreError
from gitdist.trial.checkpoint import Checkpoint, checkpoints_of, completed_rows, load_checkpoint, save_checkpoint
from tests.epoch_rows import epoch_row


def checkpoint_of(epoch):
    weights = torch.full((3, 2), float(epoch))
    return Checkpoint(
        epoch=epoch,
        model={"weight": weights, "norm.running_mean": weights[0]},
        optimizer={"state": {0: {"momentum_buffer": weights}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        cursors=torch.tensor([epoch, 0]),
        rows=[epoch_row(number, per_class={"accuracy_per_class": [0.5, 1.0]}) for number in range(1, epoch + 1)],
    )


def assert_is(found, epoch):
    expected = checkpoint_of(epoch)
    assert found.epoch == epoch and found.rows == expected.rows
    assert torch.equal(found.model["norm.running_mean"], expected.model["norm.running_mean"])
    momentum = found.optimizer["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, expected.optimizer["state"][0]["momentum_buffer"])
    assert found.cursors.tolist() == [epoch, 0]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint(tmp_path, checkpoint_of(3))

    assert_is(load_checkpoint(tmp_path), 3)
    assert completed_rows(tmp_path) == checkpoint_of(3).rows
    assert checkpoints_of(tmp_path).newest() == 3


def test_a_directory_without_checkpoints_has_none(tmp_path):
    assert load_checkpoint(tmp_path / "nowhere") is None
    assert completed_rows(tmp_path) == []


def test_a_file_of_the_first_version_still_loads(tmp_path):
    buffer = io.BytesIO()
    state = vars(checkpoint_of(2)) | {"rows": [row.to_json() for row in checkpoint_of(2).rows]}
    del state["average"]
    torch.save(state, buffer)
    checksum = hashlib.blake2b(buffer.getvalue(), digest_size=16).hexdigest()
    (tmp_path / f"epoch-000002-{checksum}.pt").write_bytes(buffer.getvalue())

    assert_is(load_checkpoint(tmp_path), 2)


@pytest.mark.parametrize("change", [{"rows": None}, {"rows": [{"epoch": 1}]}, {"unknown": 3}])
def test_a_file_with_other_fields_is_named(tmp_path, change):
    checkpoints_of(tmp_path).save(2, {**vars(checkpoint_of(2)), "rows": [], **change})
    with pytest.raises(StoreError, match=f"epoch 2 in {tmp_path} does not"):
        load_checkpoint(tmp_path)
