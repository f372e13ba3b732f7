"""A proxy of the tests' own, on loopback, between clients and a server; it loses what they say to each other."""

import socket
import threading
from collections.abc import Callable
from typing import Literal

Fate = Literal["pass", "hold", "lose the request", "lose the answer"]


class Proxy:
    """Forwards connections to a port; ``fate`` decides about each request that contains ``word``."""

    def __init__(self, port: int, word: bytes = b"COMMIT", fate: Callable[[], Fate] = lambda: "pass") -> None:
        self._server, self._word, self.fate = ("127.0.0.1", port), word, fate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._released = threading.Event()
        self._accepts = True
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones."""
        self._accepts = False
        for pair in self._pairs:
            _cut(*pair)

    def accept(self) -> None:
        """Accept connections again."""
        self._accepts = True

    def release(self) -> None:
        """Forward the requests that are held."""
        self._released.set()

    def close(self) -> None:
        """End it."""
        self.refuse()
        self.release()
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        for connection in (each for pair in self._pairs for each in pair):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server) if self._accepts else None
            except OSError:
                server = None
            if server is None:
                client.close()
                continue
            self._pairs.append((client, server))
            lost = threading.Event()
            for forward in (self._ask, self._answer):
                thread = threading.Thread(target=forward, args=(client, server, lost), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _ask(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        for request in _received(client):
            fate = self.fate() if self._word in request else "pass"
            if fate == "lose the request":
                break
            if fate == "lose the answer":
                lost.set()
            if fate == "hold":
                self._released.wait()
            if not _sent(server, request):
                break
        if not lost.is_set():
            _cut(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        for answer in _received(server):
            if lost.is_set() or not _sent(client, answer):
                break
        _cut(client, server)


def _received(connection: socket.socket):
    while True:
        try:
            data = connection.recv(1 << 16)
        except OSError:
            return
        if not data:
            return
        yield data


def _sent(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def _cut(*connections: socket.socket) -> None:
    for connection in connections:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
