"""Who can reach the ports of a cluster, and whether they need a token. Whoever reaches Ray's ports can run code."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from gitdist.doctor.finding import HERE, Finding
from gitdist.doctor.machine import RAY_PORT, MachineReport

_LISTED = 3  # addresses that a message names
_REMEDIES = {
    "Ray dashboard": "start Ray with --dashboard-host 127.0.0.1 and reach it through an SSH tunnel",
    "Ray client server": "start Ray with --ray-client-server-port only behind a firewall, or not at all",
    "MLflow server": "start it with --host 127.0.0.1, or behind a proxy that asks who comes",
}


def check_listening(place: str, report: MachineReport) -> list[Finding]:
    """Judge what the watched ports are bound to.

    Args:
        place: the machine's name.
        report: what it tells.
    """
    findings = []
    for address, port, owner in report.listening:
        if owner == RAY_PORT:  # which Ray always binds to every address: see ``check_authentication``
            continue
        if _is_open(address):
            findings.append(
                Finding(
                    "exposure", place, "warning", f"{owner}: port {port} listens on {_shown(address)}", _REMEDIES[owner]
                )
            )
        else:
            findings.append(Finding("exposure", place, "ok", f"{owner}: port {port} listens on {_shown(address)}"))
    return findings


def check_public_addresses(place: str, report: MachineReport) -> list[Finding]:
    """Warn of a node with a public address: Ray's own processes listen on every address that it has."""
    public = [address for address in report.addresses if _parsed(address).is_global]
    if not public:
        return []
    seen = f"Ray's ports are open on the public address {', '.join(public)}"
    return [Finding("exposure", place, "warning", seen, "close them in the firewall, or use a private network alone")]


def check_authentication(asks: bool, mode: str | None, addresses: Iterable[str]) -> Finding:
    """Judge whether a cluster asks for a token.

    Args:
        asks: whether it refused a request without one.
        mode: ``$RAY_AUTH_MODE`` of this process.
        addresses: of all nodes, and those that the head's port is bound to.
    """
    if asks:
        return Finding("authentication", "cluster", "ok", "who brings no token is refused")
    beyond = sorted({_shown(address) for address in addresses if not _is_loopback(address)})
    one_sided = (mode or "disabled").lower() != "disabled"
    if not beyond and not one_sided:
        return Finding("authentication", "cluster", "ok", "off, and the cluster listens on loopback alone")
    more = f" and {len(beyond) - _LISTED} more" if len(beyond) > _LISTED else ""
    remedy = (
        "run `ray get-auth-token --generate`, copy ~/.ray/auth_token to every node, and start Ray everywhere with "
        "RAY_AUTH_MODE=token"
    )
    seen = f"off, and the cluster listens on {', '.join(beyond[:_LISTED]) or 'loopback'}{more}"
    here = f"; RAY_AUTH_MODE={mode} here has its nodes' answers refused" if one_sided else ""
    return Finding("authentication", "cluster", "problem", seen + here, remedy)


def check_token_file(place: str, report: MachineReport) -> list[Finding]:
    """Judge who can read Ray's token; nothing where there is none."""
    if report.token_file is None:
        return []
    path = report.token_file
    if not report.token_readers:
        return [Finding("token", place, "ok", f"{path} is its owner's alone")]
    seen = f"{path} can be read by {report.token_readers}" + (
        "" if report.token_used else " (not in use: RAY_AUTH_MODE=disabled)"
    )
    return [Finding("token", place, "problem" if report.token_used else "warning", seen, f"chmod 600 {path}")]


def check_remote_server(uri: str, host: str, addresses: Iterable[str]) -> list[Finding]:
    """Warn of an MLflow server that is reached over a public network without encryption.

    Args:
        uri: the tracking URI, without a password.
        host: the host in it.
        addresses: those that the name stands for.
    """
    public = [address for address in addresses if _parsed(address).is_global]
    if uri.startswith("https:") or not public:
        return []
    seen = f"MLflow at {host} ({public[0]}) is reached without encryption over a public network"
    return [Finding("exposure", HERE, "warning", seen, "use https, an SSH tunnel or a private network")]


def _is_open(address: str) -> bool:
    return _parsed(address).is_unspecified or _parsed(address).is_global


def _shown(address: str) -> str:
    try:
        return "every address" if _parsed(address).is_unspecified else str(_parsed(address))
    except ValueError:  # a name
        return address


def _is_loopback(address: str) -> bool:
    try:
        return _parsed(address).is_loopback
    except ValueError:  # a name
        return address == "localhost"


def _parsed(address: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
