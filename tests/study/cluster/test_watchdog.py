import signal
import socket
import threading
import time

import pytest

from gitdist.errors import RayUnavailableError
from gitdist.study.cluster import watchdog
from gitdist.study.cluster.watchdog import raising_death


@pytest.fixture
def head(monkeypatch):
    """A socket that answers like the control process of a cluster, until it is closed."""
    monkeypatch.setattr(watchdog, "_CHECK_S", 0.05)
    monkeypatch.setattr(watchdog, "_GRACE_S", 0.05)
    monkeypatch.setattr(watchdog, "_MAX_SILENCE_S", 0.1)
    before = signal.getsignal(signal.SIGURG)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server
    assert signal.getsignal(signal.SIGURG) == before


def address(head: socket.socket) -> str:
    return f"127.0.0.1:{head.getsockname()[1]}"


def test_the_death_of_the_cluster_is_raised_where_the_main_thread_waits(head):
    with pytest.raises(RayUnavailableError), raising_death(address(head)):
        head.close()
        time.sleep(60)


def test_it_is_raised_in_another_thread_when_that_runs_python(head):
    raised = []

    def wait() -> None:
        try:
            with raising_death(address(head)):
                head.close()
                for _ in range(1200):
                    time.sleep(0.05)
        except RayUnavailableError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_an_error_that_follows_from_the_death_is_that_of_ray(head):
    with pytest.raises(RayUnavailableError) as caught, raising_death(address(head)):
        head.close()
        try:
            time.sleep(60)
        finally:
            raise ValueError("no actor answers")
    assert isinstance(caught.value.__cause__, ValueError)


def test_other_errors_pass_and_nothing_is_raised_after_the_block(head):
    with pytest.raises(ValueError), raising_death(address(head)):
        raise ValueError
    head.close()
    time.sleep(0.5)
