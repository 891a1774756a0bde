"""A TCP proxy in front of a server, which misbehaves as it is told to."""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.tcp import LOOPBACK

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Hang:
    """Take what comes, and answer nothing."""


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """Cut the connection (RST) after so many bytes of the answer."""

    size: int


@dataclass(frozen=True, slots=True)
class Garble:
    """Pass the answer on with every byte after an HTTP head, or every byte, made senseless."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Hold each answer back for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer HTTP requests in the server's place: those that ``when`` is part of, and pass on the others."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    when: bytes = b""

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        headers = {"Content-Type": "application/json", **self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} As ordered\r\n{head}\r\n".encode() + self.body


Fault = Hang | ResetAfter | Garble | Delay | Answer


class Proxy:
    """Passes bytes between a port of its own and a server's port, or unix socket.

    One fault at a time, for the length of a ``with``; connections that stand then meet it too, and are cut
    when it ends.
    """

    def __init__(self, target: int | Path) -> None:
        self._target = target
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listen(0)
        self.port = int(self._listener.getsockname()[1])
        self.address = f"{LOOPBACK}:{self.port}"
        self.url = f"http://{self.address}"

    @contextmanager
    def meeting(self, fault: Fault) -> Iterator[None]:
        """Have the fault befall every connection."""
        self._fault = fault
        try:
            yield
        finally:
            self._fault = None
            self.cut()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens, and the connections that stood are cut."""
        self.close()
        try:
            yield
        finally:
            self._listen(self.port)

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            _reset(each)

    def close(self) -> None:
        """Listen no more, and cut what stands."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server((LOOPBACK, port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                _hurry(client)
                try:
                    server = self._connect()
                except OSError:
                    _reset(client)
                    continue
                with self._lock:
                    self._sockets |= {client, server}
                for pump in (self._ask, self._answer):
                    threading.Thread(target=self._pump, args=(pump, client, server), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            server = socket.create_connection((LOOPBACK, self._target), _LIMIT)
            _hurry(server)
            return server
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _pump(
        self,
        pump: Callable[[socket.socket, socket.socket], None],
        client: socket.socket,
        server: socket.socket,
    ) -> None:
        # The other direction may have closed both by now.
        with suppress(OSError):
            server.settimeout(None)
            pump(client, server)
        with self._lock:
            self._sockets -= {client, server}
        _reset(client)
        _reset(server)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        pending = b""
        while data := client.recv(65_536):
            fault = self._fault
            if isinstance(fault, Hang):
                continue
            if not isinstance(fault, Answer):
                server.sendall(pending + data)
                pending = b""
                continue
            pending += data
            if _is_whole(pending):
                if fault.when in pending:
                    client.sendall(fault.encoded())
                else:
                    server.sendall(pending)
                pending = b""

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(65_536):
            fault = self._fault
            if isinstance(fault, Hang):
                continue
            if isinstance(fault, ResetAfter):
                client.sendall(data[: fault.size])
                return
            if isinstance(fault, Delay):
                threading.Event().wait(fault.seconds)
            client.sendall(_garbled(data) if isinstance(fault, Garble) else data)


def _hurry(connection: socket.socket) -> None:
    """Send at once what comes in pieces, and not only when the piece before was confirmed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(connection: socket.socket) -> None:
    """Close with RST, and wake whoever reads from it."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    connection.close()


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def _garbled(answer: bytes) -> bytes:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/"):
        return b"?" * len(answer)
    return head + end + b"?" * len(body)
