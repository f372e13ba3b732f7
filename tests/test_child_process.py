import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gitdist import child_process
from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.errors import SpecError
from tests import endings
from tests.waiting import until


def child() -> ChildProcess:
    return ChildProcess(endings.__name__)


def test_functions_run_in_one_other_process_which_ends_with_the_block():
    with child() as process:
        pid = process.call("run", endings.pid)
        assert process.call("run", endings.pid) == pid != os.getpid()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (endings.leave, (0,), ["exit code 0"]),
        (endings.leave, (3, "usage: thing"), ["exit code 3", "usage: thing"]),
        (endings.call_exit, (0,), ["SystemExit", "0"]),
        (endings.call_exit, (None,), ["SystemExit"]),
        (endings.call_exit, ("no licence",), ["SystemExit", "no licence"]),
        (endings.kill_itself, (), ["SIGKILL"]),
        (endings.raise_odd, (), ["OddError", "odd"]),
        (endings.close_files, (), ["it "]),
    ],
)
def test_how_a_function_ends_its_process_is_one_line(function, arguments, words):
    with child() as process, pytest.raises(ChildEndedError) as caught:
        process.call("run", function, *arguments)
    message = str(caught.value)
    assert "\n" not in message and "and more" not in message
    assert all(word in message for word in words), message


def test_an_error_for_the_user_is_raised_as_it_is():
    with child() as process, pytest.raises(SpecError, match="trial.lr must be positive") as caught:
        process.call("run", endings.refuse)
    assert (caught.value.remedy, caught.value.facts) == ("fork", {"name": "x"})


def test_output_forks_and_threads_that_exit_change_nothing(capfd):
    with child() as process:
        assert process.call("print", endings.print_much, 10**7) == 10**7
        pid = process.call("run", endings.pid)
        assert process.call("fork", endings.fork) == pid
        assert process.call("run", endings.pid) == pid
        assert process.call("exit", endings.exit_on_a_thread) == "still here"
    assert capfd.readouterr() == ("", "")


def test_a_function_that_takes_long_is_named_and_waited_for(tmp_path, monkeypatch):
    file, told = tmp_path / "file", []

    def warn(text: str, *values: object) -> None:
        told.append(text % values)
        file.touch()

    monkeypatch.setattr(child_process, "_SLOW_S", 0.2)
    monkeypatch.setattr(child_process._log, "warning", warn)
    with child() as process:
        assert process.call("generator.target 'a:b' must run", endings.wait_for, file) == "there"
    assert "generator.target 'a:b'" in told[0] and "Ctrl-C" in told[0]


PARENT = """
import sys
from pathlib import Path
from gitdist.child_process import ChildProcess
from tests import endings
with ChildProcess(endings.__name__) as process:
    process.call("run", endings.leave_pid_and_block, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_function_that_blocks_ends_with_its_parent(tmp_path, number):
    file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", PARENT, file], stderr=subprocess.DEVNULL) as parent:
        until(file.exists)
        pid = int(file.read_text())
        parent.send_signal(number)
        assert parent.wait(60) == -number
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_file_in_the_working_directory_hides_no_library(tmp_path, monkeypatch):
    Path(tmp_path, "pickle.py").write_text("raise RuntimeError('not the library')\n")
    monkeypatch.chdir(tmp_path)
    with child() as process:
        assert process.call("run", endings.pid) != os.getpid()
