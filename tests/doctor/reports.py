"""Reports of machines, made from what an ordinary one tells."""

from gitdist.doctor.machine import DirectoryReport, MachineReport

VERSIONS = {"python": "3.11.7", "gitdist": "0.5.0", "ray": "2.60.0", "torch": "2.13.0+cpu", "optuna": "5.0.0"}


def machine(**changes) -> MachineReport:
    usual = {"host": "a", "versions": VERSIONS, "code": "1234", "shared_memory_bytes": int(8e9)}
    return MachineReport(**{**usual, **changes})


def versions(**changes) -> MachineReport:
    return machine(versions={**VERSIONS, **changes})


def directory(**changes) -> DirectoryReport:
    return DirectoryReport(**{"free_bytes": int(50e9), "disk": "ext4", "sees_token": True, **changes})
