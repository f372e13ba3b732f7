"""Whether every node runs what runs here."""

from gitdist.doctor.finding import HERE, Finding, State
from gitdist.doctor.machine import MachineReport

_CHECK = "versions"
_STRICT = ("python", "gitdist", "ray", "torch")  # others only matter to the driver, or to small print


def check_own_versions(here: MachineReport) -> Finding:
    """Say what this machine runs, and what it lacks."""
    missing = [name for name, version in here.versions.items() if version is None]
    if missing:
        return Finding(
            _CHECK, HERE, "problem", f"no {', '.join(missing)}", "install gitdist again: pip install gitdist"
        )
    told = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    return Finding(_CHECK, HERE, "ok", told)


def compare_versions(here: MachineReport, place: str, there: MachineReport) -> Finding:
    """Compare a node with this machine.

    Args:
        here: this machine.
        place: the node's name.
        there: what it tells.
    """
    differing = {
        name: there.versions.get(name)
        for name, version in here.versions.items()
        if _without_build(there.versions.get(name)) != _without_build(version)
    }
    if differing:
        seen = ", ".join(
            f"{name} {version or 'missing'} (here {here.versions[name]})" for name, version in differing.items()
        )
        worst: State = "problem" if any(name in _STRICT or not differing[name] for name in differing) else "warning"
        wanted = " ".join(f"{name}=={_without_build(here.versions[name])}" for name in differing if name != "python")
        install = f"install there what is here: {wanted}" if wanted else ""
        python = f"start its Ray with Python {here.versions['python']}" if "python" in differing else ""
        return Finding(_CHECK, place, worst, seen, "; ".join(part for part in (python, install) if part))
    if there.code != here.code:
        seen = f"gitdist {there.versions['gitdist']} of other files than here ({there.code}, here {here.code})"
        return Finding(_CHECK, place, "warning", seen, "install the same revision of gitdist on every node")
    return Finding(_CHECK, place, "ok", "as here")


def _without_build(version: str | None) -> str | None:
    """Return a version without its build (``2.13.0+cpu``): nodes with and without a GPU rightly differ in that."""
    return version.partition("+")[0] if version else version
