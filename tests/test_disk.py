import errno
import os
import socket
from pathlib import Path

import pytest

from gitdist.disk import append_whole, disk_errors, replace_file, write_atomic
from gitdist.errors import DiskError
from tests.disks import fill, small_disk


def test_an_atomic_write_replaces_the_whole_file_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_atomic(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"new" and [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    folder, target = tmp_path / "folder", tmp_path / "elsewhere" / "target"
    folder.mkdir()
    target.parent.mkdir()
    (folder / "link").symlink_to(target)
    (folder / "chain").symlink_to("link")
    for number, name in enumerate(["link", "chain"]):  # the first time, there is no target yet
        write_atomic(folder / name, b"%d" % number)
        assert (folder / name).is_symlink() and target.read_bytes() == b"%d" % number
    assert [file.name for file in target.parent.iterdir()] == ["target"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "null").symlink_to("/dev/null")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    before = {file.name: file.lstat() for file in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(OSError, match=name):
            write_atomic(tmp_path / name, b"new")
    server.close()
    after = {file.name: file.lstat() for file in tmp_path.iterdir()}
    assert {name: status.st_ino for name, status in after.items()} == {n: s.st_ino for n, s in before.items()}
    assert Path("/dev/null").is_char_device()


def test_appends_of_a_replaced_writer_do_not_reach_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = replace_file(path, b"a")
    second = replace_file(path, b"b")
    append_whole(first, b"1", path)
    append_whole(second, b"2", path)
    assert path.read_bytes() == b"b2"
    os.close(first)
    os.close(second)


def test_an_interrupted_append_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    descriptor = replace_file(path, b"whole\n")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupt)
        append_whole(descriptor, b"half", path)
    append_whole(descriptor, b"next\n", path)
    assert path.read_bytes() == b"whole\nnext\n"
    os.close(descriptor)


def test_a_full_disk_keeps_the_old_file_and_is_reported_with_name_and_size(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        path = disk / "file"
        write_atomic(path, b"old")
        with pytest.raises(DiskError) as caught:
            write_atomic(path, bytes(300_000))
        assert path.read_bytes() == b"old" and [file.name for file in disk.iterdir()] == ["file"]
        assert str(caught.value) == f"cannot write {path} (300,000 bytes): No space left on device"
        assert caught.value.remedy == "other_disk"


def test_an_append_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        path = disk / "rows"
        descriptor = replace_file(path, b"whole\n")
        full = fill(disk, leave=8192)
        with pytest.raises(DiskError, match="rows"):
            append_whole(descriptor, bytes(50_000), path)
        assert path.read_bytes() == b"whole\n"
        full.unlink()
        append_whole(descriptor, b"too\n", path)
        assert path.read_bytes() == b"whole\ntoo\n"
        os.close(descriptor)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EIO])
def test_other_errors_of_a_disk_are_reported_alike(number: int) -> None:
    with pytest.raises(DiskError, match=f"write /x: {os.strerror(number)}"), disk_errors(Path("/x")):
        raise OSError(number, os.strerror(number))


def test_an_error_that_is_not_the_disks_passes_unchanged() -> None:
    with pytest.raises(FileNotFoundError), disk_errors(Path("/x")):
        raise FileNotFoundError(errno.ENOENT, "gone")
