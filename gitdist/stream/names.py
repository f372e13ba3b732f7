"""The names of a stream's actors, by which clients, a restarted router and metrics know them."""

import re

_SERVER = re.compile(r"gitdist-(.+)-server-(\d+)")


def router_name(stream: str) -> str:
    """Return the name of a stream's router."""
    return f"gitdist-{stream}-router"


def server_name(stream: str, index: int) -> str:
    """Return the name of one of a stream's generator servers."""
    return f"gitdist-{stream}-server-{index}"


def parse_server(name: str) -> tuple[str, int]:
    """Return the stream of a server, and which of its servers it is.

    Raises:
        ValueError: it is no server's name.
    """
    found = _SERVER.fullmatch(name)
    if found is None:
        raise ValueError(f"a generator server is named gitdist-STUDY-server-INDEX, but this one '{name}'")
    return found[1], int(found[2])
