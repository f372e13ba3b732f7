import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from gitdist.study.ledger.process import ProcessIdentity

PRINT_OWN = """
import json, sys
from dataclasses import asdict
from gitdist.study.ledger.process import ProcessIdentity
print(json.dumps(asdict(ProcessIdentity.own())), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child():
    with subprocess.Popen(
        [sys.executable, "-c", PRINT_OWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def identity_of(child: subprocess.Popen) -> ProcessIdentity:
    return ProcessIdentity(**json.loads(child.stdout.readline()))


def test_a_process_is_gone_once_it_ended_and_not_before(child):
    identity = identity_of(child)
    assert identity.pid == child.pid
    assert not identity.is_seen_gone()
    child.kill()
    child.wait()
    assert identity.is_seen_gone()


def test_a_zombie_is_gone(child):
    identity = identity_of(child)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert identity.is_seen_gone()


def test_another_process_under_the_same_number_is_not_the_one_that_was_there():
    own = ProcessIdentity.own()
    assert not own.is_seen_gone()
    assert replace(own, started_s=own.started_s - 60).is_seen_gone()


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot": "an earlier one"}, {"pid_namespace": "pid:[1]"}])
def test_what_is_not_of_this_host_cannot_be_seen_to_be_gone(child, other):
    identity = identity_of(child)
    child.kill()
    child.wait()
    assert identity.is_seen_gone()
    assert not replace(identity, **other).is_seen_gone()


def test_a_process_that_the_system_hides_is_not_gone(monkeypatch):
    own = ProcessIdentity.own()

    def hidden(pid: int) -> None:  # as under /proc with hidepid
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", hidden)
    assert own.pid == os.getpid()
    assert not own.is_seen_gone()
