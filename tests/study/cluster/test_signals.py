import ctypes
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from gitdist.study.cluster import signals
from gitdist.study.cluster.signals import STOPPED, interruptible, restoring_handlers, stop_requested

STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in STOPS}
    yield before
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", STOPS)
def test_the_first_signal_is_told_and_the_second_interrupts(number):
    told = []
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: told.append("once")):
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert told == ["once"] and stop_requested()
        os.kill(os.getpid(), signal.SIGINT)
    assert told == ["once"] and not stop_requested()


def test_a_handler_that_a_library_sets_in_the_block_is_removed():
    before = signal.getsignal(signal.SIGUSR1)
    with interruptible():
        signal.signal(signal.SIGUSR1, lambda number, frame: None)  # as Ray Tune does
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize("number", STOPS)
def test_with_nobody_to_tell_the_first_one_interrupts_and_later_ones_leave_the_clean_up_alone(number):
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), number)
        finally:
            for another in (signal.SIGINT, signal.SIGTERM, number):
                os.kill(os.getpid(), another)
            is_cleaned_up = True
    assert is_cleaned_up


def test_after_a_block_that_was_told_to_stop_signals_leave_the_clean_up_alone():
    with interruptible():
        with interruptible(lambda: None):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():  # of another stop
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_signal_of_a_program_stops_what_does_not_end_by_itself(number, monkeypatch):
    monkeypatch.setattr(signals, "_EPOCHS_S", 0.1)
    told = []
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: told.append("once")):
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert told == ["once"]


def test_a_program_that_is_no_command_is_not_ended_however_long_its_clean_up_takes(monkeypatch):
    monkeypatch.setattr(signals, "_END_S", 0.05)
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            time.sleep(0.5)


def test_a_request_is_known_while_the_main_thread_is_blocked_and_cannot_handle_it():
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    locked, known = threading.Event(), []

    def look() -> None:
        library.pthread_mutex_lock(mutex)
        locked.set()
        os.kill(os.getpid(), signal.SIGTERM)
        known.append(stop_requested(60))
        library.pthread_mutex_unlock(mutex)

    thread = threading.Thread(target=look)
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: None):
        thread.start()
        locked.wait()
        library.pthread_mutex_lock(mutex)  # which no signal interrupts
        os.kill(os.getpid(), signal.SIGTERM)
    thread.join()
    assert known == [True]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGCHLD])
def test_other_signals_request_no_stop(number):
    before = signal.signal(number, lambda *_: None)
    try:
        with interruptible():
            os.kill(os.getpid(), number)
            assert not stop_requested()
    finally:
        signal.signal(number, before)


def test_a_handler_that_a_library_took_is_given_back():
    with pytest.raises(KeyboardInterrupt), interruptible():
        with restoring_handlers():
            signal.signal(signal.SIGTERM, lambda number, frame: None)
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_off_the_main_thread_signals_stay_what_they_are(handlers):
    seen = []

    def run() -> None:
        with interruptible(), restoring_handlers():
            seen.append({number: signal.getsignal(number) for number in handlers})

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [handlers]


BLOCKED = """
import os, signal, sys
from gitdist.study.cluster import signals
signals._END_S = 0.2
signals.stop_on_signals()
with signals.interruptible(on_overdue=lambda: print("resume with this", flush=True)):
    try:
        print("ready", flush=True)
        signal.pause()
    finally:
        while True:
            signal.pause()
"""


def started(code: str, *ignored: signal.Signals, **options) -> subprocess.Popen:
    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, text=True, preexec_fn=ignore, **({"stdout": subprocess.PIPE} | options))


@pytest.mark.parametrize("number", STOPS)
def test_a_process_that_does_not_end_is_ended(number):
    with started(BLOCKED) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(60) == STOPPED
        assert process.stdout.read() == "resume with this\n"


LONG = """
import signal, time
from gitdist.study.cluster.signals import STOPPED, stop_on_signals
stop_on_signals()
try:
    while True:
        print("alive", flush=True)
        time.sleep(0.05)
except KeyboardInterrupt:
    print("stopped", flush=True)
    raise SystemExit(STOPPED)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_at_the_start_stays_ignored_and_sigterm_stops(number):
    with started(LONG, number) as process:
        assert process.stdout.readline() == "alive\n"
        process.send_signal(number)
        assert [process.stdout.readline() for _ in range(20)] == ["alive\n"] * 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == STOPPED


QUIET = """
import signal
from gitdist.study.cluster.signals import STOPPED, stop_on_signals
stop_on_signals()
try:
    print("alive", flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("stopped", flush=True)
    raise SystemExit(STOPPED)
"""


@pytest.mark.parametrize(("number", "make"), [(signal.SIGHUP, pty.openpty), (signal.SIGINT, os.pipe)])
def test_what_is_printed_to_a_closed_terminal_or_pipe_raises_nothing(number, make):
    ours, theirs = make()
    with started(QUIET, stdout=theirs) as process:
        os.close(theirs)
        assert os.read(ours, 5) == b"alive"
        os.close(ours)
        process.send_signal(number)  # SIGHUP as the kernel sends it, SIGINT as after `gitdist run ... | tee log`
        assert process.wait(60) == STOPPED
