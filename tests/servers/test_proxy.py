"""The proxy does to connections what the tests say it does."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.servers.proxy import Answer, Delay, Garble, Hang, Proxy, ResetAfter
from tests.servers.tcp import LOOPBACK

BODY = json.dumps({"path": "as asked"}).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers everything alike."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """An HTTP server that does not mind clients that go away."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Yield a proxy in front of an HTTP server."""
    server = Server((LOOPBACK, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made = Proxy(server.server_port)
    yield made
    made.close()
    server.shutdown()
    server.server_close()


def fetched(proxy: Proxy, path: str = "/", timeout: float = 5.0) -> bytes:
    """What a client gets."""
    with urllib.request.urlopen(f"{proxy.url}{path}", timeout=timeout) as answer:  # noqa: S310 - http, our own
        body: bytes = answer.read()
    return body


def received(client: socket.socket) -> int:
    """How many bytes come until the connection is reset."""
    size = 0
    with suppress(ConnectionResetError):
        while data := client.recv(100):
            size += len(data)
        raise AssertionError("it was closed, and not reset")
    return size


def test_without_a_fault_everything_passes(proxy: Proxy) -> None:
    """There and back, before and after."""
    for _ in range(3):
        assert fetched(proxy) == BODY
        with proxy.meeting(Hang()):
            pass


def test_it_refuses_connections(proxy: Proxy) -> None:
    """As a port does on which nobody listens; connections that stood are reset."""
    with socket.create_connection((LOOPBACK, proxy.port)) as standing:
        assert fetched(proxy) == BODY
        with proxy.refusing():
            with pytest.raises(urllib.error.URLError, match="refused"):
                fetched(proxy)
            with pytest.raises(ConnectionResetError):
                standing.recv(1)
    assert fetched(proxy) == BODY


def test_it_hangs(proxy: Proxy) -> None:
    """The connection is taken, and nothing comes."""
    with proxy.meeting(Hang()), pytest.raises(TimeoutError):
        fetched(proxy, timeout=0.1)


def test_it_resets_in_the_midst_of_an_answer(proxy: Proxy) -> None:
    """After as many bytes as it is told to."""
    with proxy.meeting(ResetAfter(20)), socket.create_connection((LOOPBACK, proxy.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert received(client) <= 20


def test_it_garbles_the_body(proxy: Proxy) -> None:
    """The head stands, so that it is an answer that a client takes."""
    with proxy.meeting(Garble()):
        body = fetched(proxy)
    assert body != BODY
    assert len(body) == len(BODY)


def test_it_holds_answers_back(proxy: Proxy) -> None:
    """For no less than it is told to."""
    began = time.monotonic()
    with proxy.meeting(Delay(0.1)):
        assert fetched(proxy) == BODY
    assert time.monotonic() - began >= 0.1


def test_it_answers_in_the_servers_place(proxy: Proxy) -> None:
    """Those requests that are meant, and the server the others."""
    with proxy.meeting(Answer(503, b"{}", when=b"/decrypt")):
        with pytest.raises(urllib.error.HTTPError, match="503"):
            fetched(proxy, "/decrypt")
        assert fetched(proxy, "/encrypt") == BODY
