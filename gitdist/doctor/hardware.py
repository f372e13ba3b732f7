"""Whether cards, memory and clocks are what a study needs."""

from collections.abc import Sequence

from gitdist.doctor.finding import Finding, size
from gitdist.doctor.machine import MachineReport
from gitdist.spec import StudySpec

SKEW_WARNING_S = 1.0
SKEW_PROBLEM_S = 30.0  # half of a lease: see study/ledger/lease.py
SHARED_MEMORY_BYTES = 1e9  # less than this holds too few blocks of draws

ClockSample = tuple[float, float, float]  # asked here, the time there, answered here; seconds


def check_cards(place: str, report: MachineReport, offered: float | None) -> Finding:
    """Compare the GPUs that a node offers to Ray with those that torch can use there; fewer may be meant.

    Args:
        place: the node's name.
        report: what it tells.
        offered: GPUs that it offers; None = no Ray runs there, which would find them by itself.
    """
    visible = ", ".join(report.cards) if report.cards else "none"
    if report.torch_trouble:
        return Finding("GPU", place, "problem", report.torch_trouble, "mend torch there: pip install torch")
    if offered is not None and offered > len(report.cards):
        seen = f"offers {offered:g} to Ray, visible to torch: {visible}"
        remedy = "install torch's CUDA build and the driver there, or start its Ray with fewer --num-gpus"
        return Finding("GPU", place, "problem", seen, remedy)
    fewer = offered is not None and offered < len(report.cards)
    return Finding("GPU", place, "ok", f"offers {offered:g} to Ray of {visible}" if fewer else visible)


def check_asked_cards(place: str, spec: StudySpec, offered: float) -> list[Finding]:
    """Say which parts of a study ask for a GPU where none is.

    Args:
        place: ``here`` or ``cluster``.
        spec: the study; where its cluster adds nodes, nothing is missed.
        offered: GPUs of all nodes.
    """
    shares = {name: getattr(spec.resources, name).gpu for name in ("server", "trial", "training")}
    asked = [f"resources.{name}.gpu {gpu:g}" for name, gpu in shares.items() if gpu]
    if not asked or offered or spec.resources.autoscaling:
        return []
    seen = f"the study asks for {', '.join(asked)}, and no node offers one"
    return [Finding("GPU", place, "problem", seen, "add a node with a GPU, or set these to 0")]


def check_memory(place: str, report: MachineReport, object_store_bytes: float | None) -> Finding:
    """Judge Ray's object store, where blocks of draws lie, and the shared memory that it should lie in.

    Args:
        place: the node's name.
        report: what it tells.
        object_store_bytes: size of its object store; None = no Ray runs there, which would take what fits.
    """
    shared = report.shared_memory_bytes
    store = "" if object_store_bytes is None else f"object store {size(object_store_bytes)}, "
    seen = f"{store}/dev/shm {'missing' if shared is None else size(shared)}"
    larger = "give it a larger /dev/shm (docker run --shm-size=8g; Kubernetes: an emptyDir of medium Memory)"
    if shared is None or shared < SHARED_MEMORY_BYTES or (object_store_bytes or 0) > shared:
        return Finding("memory", place, "warning", seen, larger)
    if object_store_bytes is not None and object_store_bytes < SHARED_MEMORY_BYTES:
        remedy = f"start its Ray with --object-store-memory of {SHARED_MEMORY_BYTES:,.0f} bytes or more"
        return Finding("memory", place, "warning", seen, remedy)
    return Finding("memory", place, "ok", seen)


def skew(samples: Sequence[ClockSample]) -> tuple[float, float]:
    """Return how far a clock is ahead of this machine's and how much of that is uncertain, in seconds.

    The sample that was answered soonest is believed: its moment lies between asking and answer.
    """
    asked, there, answered = min(samples, key=lambda sample: sample[2] - sample[0])
    return there - (asked + answered) / 2, (answered - asked) / 2


def check_clock(place: str, samples: Sequence[ClockSample]) -> Finding:
    """Judge a node's clock by what it said: leases and heartbeats compare times of several machines."""
    ahead, uncertain = skew(samples)
    seen = f"{abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} here (± {uncertain:.2f} s)"
    surely = abs(ahead) - uncertain
    if surely <= SKEW_WARNING_S:
        return Finding("clock", place, "ok", f"as here (± {max(uncertain, abs(ahead)):.2f} s)")
    state = "problem" if surely > SKEW_PROBLEM_S else "warning"
    remedy = "set the clocks of both machines by NTP (chrony, systemd-timesyncd)"
    return Finding("clock", place, state, seen, remedy)  # type: ignore[arg-type]
