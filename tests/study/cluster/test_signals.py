import os
import signal
import threading

import pytest

from gitdist.study.cluster.signals import interruptible, restoring_handlers


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_told_and_every_other_interrupts(number):
    told = []
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: told.append("once")):
        os.kill(os.getpid(), number)
        assert told == ["once"]
        os.kill(os.getpid(), signal.SIGINT)
    assert told == ["once"]


def test_with_nobody_to_tell_the_first_one_interrupts():
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)


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
