"""Limits of real control groups and of the affinity; each question is asked in a process that has them."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitdist import limits
from gitdist.limits import allotted_cpus, allotted_memory, spare_processes, usable_cpus

GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def control_group(controller: str, **settings: str) -> Iterator[Path]:
    """A new control group (of cgroup v1) with these settings, and an inner one without any; yield the inner one."""
    group = GROUPS / controller / f"gitdist-{secrets.token_hex(4)}"
    try:
        (group / "inner").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    try:
        for name, value in settings.items():
            (group / f"{controller}.{name}").write_text(value)
        yield group / "inner"
    finally:
        (group / "inner").rmdir()
        group.rmdir()


def ask_within(group: Path, question: str) -> str:
    code = f"from pathlib import Path; Path({str(group / 'cgroup.procs')!r}).write_text('0')\n"
    code += f"from gitdist.limits import *; print({question})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def one_cpu() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_affinity_counts(one_cpu: None) -> None:
    assert allotted_cpus() == usable_cpus() == 1


@pytest.mark.parametrize(("quota", "cpus"), [("150000", 1.5), ("25000", 0.25), ("-1", None)])
def test_a_quota_of_a_group_above_counts_as_whole_cpus(quota: str, cpus: float | None) -> None:
    with control_group("cpu", cfs_quota_us=quota) as group:
        wanted = min(cpus or 1e6, len(os.sched_getaffinity(0)))
        assert ask_within(group, "allotted_cpus()") == str(wanted)
        assert ask_within(group, "usable_cpus()") == str(max(1, int(wanted)))


def test_memory_and_processes_of_a_group_count() -> None:
    with control_group("memory", limit_in_bytes=str(2**30)) as group:
        assert int(ask_within(group, "allotted_memory()")) == 2**30
    with control_group("pids", max="100") as group:
        assert 80 < int(ask_within(group, "spare_processes()")) < 100


def test_the_second_version_of_control_groups_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Laid out as files, since a kernel has its controllers in one version only."""
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    for name, text in (("cpu.max", "50000 100000\n"), ("memory.max", "1000000\n"), ("pids.max", "20\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "pids.current").write_text("15\n")
    assert (allotted_cpus(), usable_cpus(), allotted_memory(), spare_processes()) == (0.5, 1, 1000000, 5)
    for name, text in (("cpu.max", "max 100000\n"), ("memory.max", "max\n"), ("pids.max", "max\n")):
        (tmp_path / name).write_text(text)
    assert allotted_cpus() == len(os.sched_getaffinity(0)) and allotted_memory() > 1000000


def test_the_users_own_limit_of_processes_counts() -> None:
    limited = "import os, resource; resource.setrlimit(resource.RLIMIT_NPROC, (50, 50)); os.setuid(61234)\n"
    limited += "from gitdist.limits import spare_processes; print(spare_processes())"
    if os.getuid() != 0:
        pytest.skip("another user's process can be started by root only")
    code = f"import gitdist.limits\n{limited}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "49"
