"""Whether the results directory can be written, is the same everywhere, and has room."""

from pathlib import Path

from gitdist.doctor.finding import HERE, Finding, size
from gitdist.doctor.machine import DirectoryReport

FREE_BYTES = 10e9  # a study of CIFAR's size with its checkpoints and blocks
_CHECK = "results"
_NETWORK_DISKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse")
_SERVERS = {
    "ledger": "set ledger: journal, or a PostgreSQL server",
    "MLflow": "set tracking.uri to an MLflow server's, http://host:port",
}


def check_directory(place: str, path: Path, report: DirectoryReport) -> list[Finding]:
    """Judge the results directory as one machine sees it: writable, and with room.

    Args:
        place: the machine's name.
        path: the directory.
        report: what the machine says of it.
    """
    if report.trouble:
        if place == HERE:
            return [Finding(_CHECK, place, "problem", report.trouble, "choose another with --results DIR")]
        remedy = "mount the shared directory there, writable for the user that runs Ray"
        return [Finding(_CHECK, place, "problem", report.trouble, remedy)]
    writable = Finding(_CHECK, place, "ok", f"{path} is writable" + (f" ({report.disk})" if report.disk else ""))
    return [writable, *_space(place, path, report)]


def check_sharing(place: str, path: Path, report: DirectoryReport, seen_here: bool) -> Finding | None:
    """Judge whether a node's directory is the one of this machine; None where nothing was written there.

    Args:
        place: the node's name.
        path: the directory.
        report: what the node says of it.
        seen_here: whether the node's token was found on this machine.
    """
    if report.trouble:
        return None
    remedy = (
        "put --results on a file system that every node mounts at this path (NFS, Lustre, a FUSE mount of a bucket)"
    )
    if not report.sees_token and not seen_here:
        seen = f"{path} is another directory there: neither machine sees what the other writes"
        return Finding("sharing", place, "problem", seen, remedy)
    if not report.sees_token or not seen_here:
        which = (
            "this machine does not see what is written there"
            if report.sees_token
            else "it does not see what is written here"
        )
        late = "; mount it without long caching of names (NFS: actimeo=1)"
        return Finding("sharing", place, "problem", f"{path}: {which}", remedy + late)
    return Finding("sharing", place, "ok", f"{path} is the same directory as here")


def check_sqlite(check: str, path: Path, disk: str | None) -> list[Finding]:
    """Warn of SQLite on a network disk, whose locks it cannot rely on.

    Args:
        check: whose it is: ``ledger`` or ``MLflow``.
        path: the directory of its file.
        disk: the type of the file system there.
    """
    if not (disk or "").startswith(_NETWORK_DISKS):
        return []
    return [Finding(check, HERE, "warning", f"SQLite on a network disk ({path}: {disk})", _SERVERS[check])]


def _space(place: str, path: Path, report: DirectoryReport) -> list[Finding]:
    if report.free_bytes is None:
        return []
    seen = f"{size(report.free_bytes)} free at {path}"
    if report.free_bytes >= FREE_BYTES:
        return [Finding("disk", place, "ok", seen)]
    remedy = f"free {size(FREE_BYTES)}: gitdist store gc, store.max_gb, or --results on another disk"
    return [Finding("disk", place, "warning", seen, remedy)]
