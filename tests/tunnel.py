"""A tunnel to a port of this machine, as SSH's, that can be torn."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Tunnel(socketserver.ThreadingTCPServer):
    """Carries what is sent to its own port on loopback to another one, and what comes back."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = ("127.0.0.1", port)
        self.ends: list[socket.socket] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def tear(self) -> None:
        """End the connections that there are; later ones are carried."""
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was torn is no news."""


class _Connection(socketserver.BaseRequestHandler):
    server: Tunnel

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as there:
            self.server.ends += [self.request, there]
            back = threading.Thread(target=_carry, args=[there, self.request], daemon=True)
            back.start()
            _carry(self.request, there)
            back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(1 << 16):
            target.sendall(some)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def tunnel_to(port: int) -> Iterator[Tunnel]:
    """Dig a tunnel to a port."""
    with Tunnel(port) as tunnel:
        thread = threading.Thread(target=tunnel.serve_forever, daemon=True)
        thread.start()
        try:
            yield tunnel
        finally:
            tunnel.shutdown()
            tunnel.tear()
