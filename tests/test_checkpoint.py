import hashlib
import io
import os
from pathlib import Path

import pytest
import torch

from gitdist.checkpoint import CheckpointFolder
from gitdist.errors import DiskError, StoreError
from tests.disks import small_disk
from tests.unprivileged import shared_folder, unprivileged


def state_of(number: int, size: int = 3) -> dict:
    return {"weights": torch.full((size,), float(number)), "rows": [[1.0, 2.0]]}


def numbers(directory: Path) -> list[int]:
    return sorted(int(file.name.split("-")[1]) for file in directory.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "new", "step")


@pytest.fixture
def files(folder: CheckpointFolder) -> list[Path]:
    """Two checkpoints, of steps 1 and 2."""
    return [folder.save(number, state_of(number)) for number in (1, 2)]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def cut(content: bytes) -> bytes:
    return content[:-1]


def empty(content: bytes) -> bytes:
    return b""


def test_the_newest_of_two_kept_checkpoints_is_loaded(folder: CheckpointFolder, tmp_path: Path) -> None:
    assert folder.load() is None and folder.newest() == 0
    for number in (9, 10, 1_000_000):
        folder.save(number, state_of(number))
    assert numbers(tmp_path / "new") == [10, 1_000_000]
    number, state = folder.load()  # type: ignore[misc]
    assert number == folder.newest() == 1_000_000
    assert state["weights"].tolist() == [1e6] * 3 and state["rows"] == [[1.0, 2.0]]


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_newest_one_is_removed_and_the_one_before_taken(folder, files, damage) -> None:
    files[1].write_bytes(damage(files[1].read_bytes()))
    assert folder.load()[0] == 1
    assert not files[1].exists() and files[0].exists()


def test_two_damaged_ones_mean_a_fresh_start(folder, files) -> None:
    for file in files:
        file.write_bytes(cut(file.read_bytes()))
    assert folder.load() is None


def test_a_late_writer_of_an_earlier_step_takes_no_newer_one_away(folder, files, tmp_path) -> None:
    for number in (3, 4):
        folder.save(number, state_of(number))
    folder.save(2, state_of(2))
    assert numbers(tmp_path / "new") == [2, 3, 4]
    assert folder.load()[0] == 4


def test_what_a_killed_writer_left_is_removed_and_other_files_are_left_alone(folder, files, tmp_path) -> None:
    others = {"rows.jsonl", ".rows.jsonl.1.tmp", "step-3.pt", "epoch-000009-" + "0" * 32 + ".pt"}
    for name in [*others, ".step-000003-x.pt.77.tmp"]:
        (tmp_path / "new" / name).write_bytes(b"x")
    assert folder.load()[0] == 2
    for number in (3, 4):
        folder.save(number, state_of(number))
    left = {file.name for file in (tmp_path / "new").iterdir()}
    assert others <= left and len(left) == len(others) + 2


def test_a_full_disk_leaves_the_older_checkpoints_whole_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = CheckpointFolder(disk, "step")
        for number in (1, 2):
            folder.save(number, state_of(number, 110_000))
        before = {file: file.read_bytes() for file in disk.iterdir()}
        with pytest.raises(DiskError, match=r"step-000003-\w+\.pt \(44\d,\d+ bytes\): No space left"):
            folder.save(3, state_of(3, 110_000))
        assert {file: file.read_bytes() for file in disk.iterdir()} == before
        assert folder.load()[0] == 2  # type: ignore[index]


class Program:
    """Loading it as a program would write a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_loading_runs_no_code(folder, files, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Program(tmp_path / "ran"), buffer)
    content = buffer.getvalue()
    name = f"step-000003-{hashlib.blake2b(content, digest_size=16).hexdigest()}.pt"
    (tmp_path / "new" / name).write_bytes(content)
    with pytest.raises(StoreError, match=name) as caught:
        folder.load()
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()
    assert "which is neither a tensor nor a plain value" in str(caught.value)
    assert not any(advice in str(caught.value) for advice in ("weights_only", "trust", "option"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_by_name(folder, files, make) -> None:
    files[1].unlink()
    make(files[1])
    with pytest.raises(StoreError, match=f"{files[1].name} is not; remove it"):
        folder.load()


def test_a_checkpoint_without_permission_is_not_called_damaged() -> None:
    with shared_folder() as directory:
        file = CheckpointFolder(directory, "step").save(1, state_of(1))
        file.chmod(0)
        with unprivileged(), pytest.raises(StoreError, match=f"{file.name} is not .Permission denied"):
            CheckpointFolder(directory, "step").load()
        assert file.exists()
