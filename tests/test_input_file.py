import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gitdist.errors import DataError, SpecError
from gitdist.input_file import expand_home, list_folder, open_input, read_input
from tests.unprivileged import shared_folder, unprivileged


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # the length of a path is limited
        server.bind(path.name)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": bind_socket,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "link leads nowhere": lambda path: path.symlink_to("absent"),
    "symbolic links": lambda path: path.symlink_to(path.name),
    "No such file": lambda path: None,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path, kind: str) -> None:
    NO_FILES[kind](tmp_path / "input")
    with pytest.raises(DataError, match=f"{tmp_path}/input.*{kind}"):
        read_input(tmp_path / "input")


def test_a_path_that_no_system_call_takes_is_missing() -> None:
    with pytest.raises(DataError, match=r"/in\\x00put: No such file"):
        read_input(Path("/in\0put"))


def test_a_missing_permission_is_called_that() -> None:
    with shared_folder() as folder:
        (folder / "input").write_bytes(b"content")
        (folder / "input").chmod(0)
        (folder / "closed").mkdir(0o700)
        (folder / "closed").chmod(0)
        with unprivileged():
            with pytest.raises(DataError, match="cannot read .*input: Permission denied; .* permission"):
                read_input(folder / "input")
            with pytest.raises(DataError, match="cannot read .*closed: Permission denied"):
                list_folder(folder / "closed")
            with pytest.raises(DataError, match="cannot read .*inside: Permission denied"):
                read_input(folder / "closed" / "inside")
        (folder / "closed").chmod(0o700)


def appended(path: Path) -> None:
    with open(path, "ab") as stream:
        stream.write(b"more")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [appended, emptied])
@pytest.mark.parametrize("fails", [True, False])
def test_a_file_that_changes_while_it_is_read_is_not_called_damaged(
    tmp_path: Path, change: Callable[[Path], None], fails: bool
) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"content")
    with pytest.raises(DataError, match="input must not change while it is read"), open_input(file):
        change(file)
        if fails:
            raise ValueError("cut short")


def test_a_file_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"content")
    (tmp_path / "new").write_bytes(b"other content")
    with open_input(file) as stream:
        (tmp_path / "new").replace(file)
        assert stream.read() == b"content"


def test_a_file_that_is_larger_than_the_memory_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "input", "wb") as stream:
        stream.truncate(2**43)  # without blocks on the disk
    with pytest.raises(DataError, match="input must fit into half of the free memory"):
        read_input(tmp_path / "input")


def test_a_tilde_is_the_home_directory_at_the_beginning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, path in (("~/x", "/home/somebody/x"), ("~", "/home/somebody"), ("~root", "/root"), ("./~/x", "~/x")):
        assert expand_home(given) == Path(path)
    for same in ("a/~/b", "/data/~x", "x~"):
        assert expand_home(same) == Path(same)


@pytest.mark.parametrize("path", ["~nobody-here/x", "~nobody-here"])
def test_an_unknown_home_directory_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="~nobody-here"):
        expand_home(path)
