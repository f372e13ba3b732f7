"""What the reports of machines mean for a study."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gitdist.doctor.finding import HERE, Finding, State
from gitdist.doctor.machine import DirectoryReport, MachineReport
from gitdist.errors import GitdistError
from gitdist.generator.kinds import needs_training
from gitdist.limits import MIN_OPEN_FILES, MIN_PROCESSES
from gitdist.spec import ResourcesSpec, StudySpec
from gitdist.study.scheduling.gpu_shares import describe_gpus, describe_idle, share_gpus, use_of_cards
from gitdist.study.scheduling.packing import Node, check_fits_alone, find_capacity, pack

STRICT = ("python", "gitdist", "ray", "torch")  # other packages matter to the driver only
FREE_BYTES = 10e9  # a study of CIFAR's size with its checkpoints and blocks
MEMORY_BYTES = 4e9  # a study of 8 trials on two cores takes 3.1 GiB
SHARED_MEMORY_BYTES = 1e9  # less than this holds too few blocks of draws
OPEN_FILES = 4096  # below, Ray warns of connection errors
TEMPORARY_FREE = 0.05  # below, Ray spills no objects
SPARE_PROCESSES = 1000  # 30 for each server and trial, and 130 for Ray
NETWORK_DISKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse")
SERVERS = {
    "ledger": "set ledger: journal, or a PostgreSQL server",
    "MLflow": "set tracking.uri to an MLflow server's, http://host:port",
}


def check_versions(here: MachineReport) -> Finding:
    """Say what runs on this machine, or what is missing."""
    missing = [name for name, version in here.versions.items() if version is None]
    shown = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    seen = f"no {', '.join(missing)}" if missing else shown
    return Finding.judge(not missing, "versions", HERE, seen, "install gitdist again: pip install gitdist")


def compare_versions(here: MachineReport, place: str, there: MachineReport) -> Finding:
    """Compare a node with this machine; builds of a version (2.13.0+cpu) may differ."""
    wanted = {name: (version or "").partition("+")[0] for name, version in here.versions.items()}
    found = {name: (there.versions.get(name) or "missing").partition("+")[0] for name in wanted}
    differing = [name for name in wanted if found[name] != wanted[name]]
    if differing:
        seen = ", ".join(f"{name} {found[name]} (here {wanted[name]})" for name in differing)
        is_strict = any(name in STRICT or found[name] == "missing" for name in differing)
        remedy = "install the versions that are here, and start its Ray with them"
        return Finding("versions", place, "problem" if is_strict else "warning", seen, remedy)
    is_same = there.code == here.code
    other = f"gitdist {found['gitdist']} with other files than here ({there.code}, here {here.code})"
    remedy = "install the same revision of gitdist on every node"
    return Finding.judge(is_same, "versions", place, "as here" if is_same else other, remedy, "warning")


def check_machine(place: str, report: MachineReport, node: Node | None = None, store_bytes: float = 0) -> list[Finding]:
    """Judge GPUs, CPUs, limits and temporary directory."""

    def judge(is_ok: bool, check: str, seen: str, remedy: str, otherwise: State = "warning") -> Finding:
        return Finding.judge(is_ok, check, place, seen, remedy, otherwise)

    num_gpus, gpus = (len(node.cards) if node else 0), ", ".join(report.gpus) or "none"
    seen = f"offers {num_gpus} to Ray, visible to torch: {gpus}" if node else gpus
    remedy = "install torch's CUDA build and the driver there, or start its Ray with fewer --num-gpus"
    findings = [judge(num_gpus <= len(report.gpus), "GPU", seen, remedy, "problem")]
    if report.gpu_error:
        findings = [judge(False, "GPU", report.gpu_error, "install torch there again: pip install torch", "problem")]

    seen = f"{report.cpus} CPUs, {report.allotted_cpus:g} allotted" + (f", offers {node.cpu:g} to Ray" if node else "")
    remedy = f"start its Ray with --num-cpus={max(1, int(report.allotted_cpus))}"
    findings.append(judge(node is None or node.cpu <= report.allotted_cpus, "CPU", seen, remedy))

    remedy = f"raise the hard limit to {OPEN_FILES} or more (ulimit -Hn)"
    state: State = "problem" if report.open_files < MIN_OPEN_FILES else "warning"
    seen = f"at most {report.open_files:,}"
    findings.append(judge(report.open_files >= OPEN_FILES, "open files", seen, remedy, state))
    spare = sys.maxsize if report.spare_processes is None else report.spare_processes
    remedy = f"raise the limit to allow {SPARE_PROCESSES} or more (ulimit -u, or docker run --pids-limit)"
    state = "problem" if spare < MIN_PROCESSES and node is None else "warning"
    seen = "no limit" if report.spare_processes is None else f"{spare:,} processes and threads may be started"
    findings.append(judge(spare >= SPARE_PROCESSES, "processes", seen, remedy, state))
    remedy = f"allot {_size(MEMORY_BYTES)} or more, or lower resources.max_concurrent"
    findings.append(judge(report.memory_bytes >= MEMORY_BYTES, "memory", _size(report.memory_bytes), remedy))

    # A running Ray takes its part of it.
    shared = (report.shared_memory_bytes if node else report.shared_memory_free) or 0
    seen = (f"object store {_size(store_bytes)}, " if store_bytes else "") + f"/dev/shm {_size(shared)}"
    remedy = "free or enlarge /dev/shm (docker run --shm-size=8g; Kubernetes: an emptyDir of medium Memory)"
    enough = shared >= max(SHARED_MEMORY_BYTES, store_bytes)
    if enough and 0 < store_bytes < SHARED_MEMORY_BYTES:
        enough, remedy = False, f"start its Ray with --object-store-memory={SHARED_MEMORY_BYTES:.0f} or more"
    findings.append(judge(enough, "shared memory", seen, remedy))

    if report.home_error is not None and node is None:
        remedy = "set HOME to a directory that can be written"
        findings.append(judge(False, "home", report.home_error, remedy, "problem"))
    if report.temporary_error is not None:
        remedy = "name a short path on a local disk in RAY_TMPDIR before Ray starts"
        return [*findings, judge(False, "temporary", report.temporary_error, remedy, "problem")]
    free, remedy = report.temporary_free or 0.0, "free some, or name another directory in RAY_TMPDIR before Ray starts"
    seen = f"{100 * free:.0f} % free at {report.temporary}"
    return [*findings, judge(free >= TEMPORARY_FREE, "temporary", seen, remedy)]


def check_directory(place: str, path: Path, report: DirectoryReport) -> list[Finding]:
    """Judge the results directory as one machine sees it: writable, the same as here, and with free space."""
    there = "mount the shared directory there, writable for the user that runs Ray"
    if report.error:
        remedy = "choose another with --results DIR" if place == HERE else there
        return [Finding("results", place, "problem", report.error, remedy)]
    file_system = f" ({report.file_system})" if report.file_system else ""
    findings = [Finding("results", place, "ok", f"{path} is writable{file_system}")]
    if report.sees_token is not None:
        same, other = "is the same directory as here", "does not show what is written here"
        remedy = "put --results on a file system that every node mounts there (NFS with actimeo=1, Lustre), or a URI"
        seen = f"{path} {same if report.sees_token else other}"
        findings.append(Finding.judge(report.sees_token, "sharing", place, seen, remedy))
    if report.free_bytes is not None:
        seen = f"{_size(report.free_bytes)} free at {path}"
        remedy = f"free {_size(FREE_BYTES)}: gitdist store gc, store.max_gb, or --results on another disk"
        findings.append(Finding.judge(report.free_bytes >= FREE_BYTES, "disk", place, seen, remedy, "warning"))
    return findings


def check_sqlite(check: str, path: Path, file_system: str | None) -> list[Finding]:
    """Warn of the SQLite file of the ledger or MLflow on a network disk, on whose locks it cannot rely."""
    if not (file_system or "").startswith(NETWORK_DISKS):
        return []
    return [Finding(check, HERE, "warning", f"SQLite on a network disk ({path}: {file_system})", SERVERS[check])]


def check_capacity(place: str, nodes: Sequence[Node], spec: StudySpec) -> list[Finding]:
    """Place a study's servers and trials on nodes with nothing on them; warn of GPUs that it leaves idle."""
    num_servers = spec.num_servers
    resources = share_gpus(nodes, spec.resources, num_servers, spec.num_trials)
    findings = []
    try:
        seen = "no trials"
        if spec.search.total:
            seen = find_capacity(nodes, resources, num_servers).note
            findings = _check_use_of_gpus(place, nodes, resources, num_servers, spec.num_trials)
        if needs_training(spec.generator):
            if place == HERE:  # Ray is started here with the CPUs that training asks for
                nodes = [replace(node, cpu=max(node.cpu, resources.training.cpu)) for node in nodes]
            check_fits_alone(nodes, resources, "training", "train the generator")
        if spec.search.total and not num_servers and spec.data.nuisance == "none":
            check_fits_alone(nodes, resources, "server", "transform the images that eKLD is measured on")
    except GitdistError as error:
        return [Finding.of_error("capacity", place, error)]
    return [Finding("capacity", place, "ok", seen), *findings]


def _check_use_of_gpus(
    place: str, nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, num_trials: int
) -> list[Finding]:
    cards = use_of_cards(nodes, resources, pack(nodes, resources, num_servers).servers, num_trials)
    if not cards:
        return []
    seen = describe_gpus(resources, cards, sharing=bool(num_servers))
    idle = describe_idle(resources, cards, num_trials)
    return [Finding.judge(idle is None, "GPU use", place, seen, idle[1] if idle else "", "warning")]


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
