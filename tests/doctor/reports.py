"""Reports of machines, made from what an ordinary one says."""

from gitdist.doctor.machine import DirectoryReport, MachineReport

VERSIONS = {"python": "3.11.7", "gitdist": "0.5.0", "ray": "2.60.0", "torch": "2.13.0+cpu", "optuna": "5.0.0"}
ORDINARY = {
    "versions": VERSIONS,
    "code": "1234",
    "gpus": [],
    "gpu_error": None,
    "cpus": 8,
    "allotted_cpus": 8.0,
    "open_files": 65536,
    "memory_bytes": int(16e9),
    "spare_processes": None,
    "shared_memory_bytes": int(8e9),
    "shared_memory_free": int(8e9),
    "home_error": None,
    "temporary": "/tmp",
    "temporary_error": None,
    "temporary_free": 0.5,
}


def machine(**changes) -> MachineReport:
    return MachineReport(**{**ORDINARY, **changes})


def versions(**changes) -> MachineReport:
    return machine(versions={**VERSIONS, **changes})


def directory(**changes) -> DirectoryReport:
    return DirectoryReport(**{"free_bytes": int(50e9), "file_system": "ext4", "sees_token": True, **changes})
