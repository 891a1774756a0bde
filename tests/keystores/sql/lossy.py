"""A unix socket in front of a database's own, which loses the answer to a COMMIT when it is told to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, make_url

_SIZE = 65_536


class LossySocket:
    """Passes everything on, until ``lose_the_next_commit``.

    That COMMIT reaches the server, which answers it; then the connection is cut, and the client does not
    learn what became of it.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self._server = str(server)
        self._armed = threading.Event()
        self.lost = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._start(self._accept)

    def lose_the_next_commit(self) -> None:
        """Whichever connection makes it."""
        self.lost.clear()
        self._armed.set()

    def close(self) -> None:
        """Cut every connection, and wait for the threads."""
        for each in list(self._sockets):
            _cut(each)
        for thread in list(self._threads):
            thread.join(10)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._sockets += [client, server]
                losing = threading.Event()
                self._start(self._ask, client, server, losing)
                self._start(self._answer, client, server, losing)

    def _ask(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(_SIZE):
                if b"COMMIT" in data.replace(b"COMMITTED", b"") and self._armed.is_set():
                    self._armed.clear()
                    losing.set()
                server.sendall(data)
        _cut(server)

    def _answer(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(_SIZE):
                if losing.is_set():
                    self.lost.set()
                    break
                client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextmanager
def lossy(url: str, folder: Path) -> Iterator[tuple[URL, LossySocket]]:
    """The URL of the same database through such a socket, in ``folder``, and the socket."""
    direct = make_url(url)
    if direct.get_backend_name() == "postgresql":
        name = ".s.PGSQL.5432"
        server, query = Path(str(direct.query["host"])) / name, {"host": str(folder)}
    else:
        name = "lossy.sock"
        server, query = Path(str(direct.query["unix_socket"])), {"unix_socket": str(folder / name)}
    between = LossySocket(folder / name, server)
    try:
        yield direct.update_query_dict(query), between
    finally:
        between.close()
