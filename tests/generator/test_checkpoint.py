import torch

from gitdist.generator.checkpoint import load_checkpoint, save_checkpoint


def test_the_newest_of_two_kept_checkpoints_is_loaded(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, {"weights": torch.full((3,), float(step)), "rows": [[1.0, 2.0]]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010.ckpt", "step-00000100.ckpt"]
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 100
    assert found[1]["weights"].tolist() == [100.0] * 3
    assert found[1]["rows"] == [[1.0, 2.0]]


def test_a_damaged_newest_one_is_removed_and_the_one_before_taken(tmp_path):
    save_checkpoint(tmp_path, 1, {"a": 1})
    save_checkpoint(tmp_path, 2, {"a": 2})
    newest = tmp_path / "step-00000002.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert load_checkpoint(tmp_path) == (1, {"a": 1})
    assert not newest.exists()


def test_truncated_and_empty_files_mean_a_fresh_start(tmp_path):
    save_checkpoint(tmp_path, 1, {"a": 1})
    save_checkpoint(tmp_path, 2, {"a": 2})
    (tmp_path / "step-00000001.ckpt").write_bytes(b"")
    newest = tmp_path / "step-00000002.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert load_checkpoint(tmp_path) is None
