"""A server on a TCP port comes up as ours, on the loopback alone, and says why when it does not."""

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import process
from tests.servers.process import ServerFailed
from tests.servers.tcp import LOOPBACK, OwnedTCPServer, free_port, port_owner

PYTHON = Path(sys.executable)
LISTEN = """
import os, socket, sys, time
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("greeting:", os.environ.get("GREETING"), flush=True)
    time.sleep(60)
"""
WAIT = "import time; time.sleep(60)"


@pytest.fixture
def server() -> Iterator[OwnedTCPServer]:
    """Yield a server that is not started yet."""
    with OwnedTCPServer("trial") as trial:
        yield trial


def test_start_returns_once_the_process_listens(server: OwnedTCPServer) -> None:
    """The listener is the very process that was started, and it takes connections."""
    server.start_on_port(PYTHON, ["-c", LISTEN, LOOPBACK, str(server.port)])
    assert server.process is not None
    assert port_owner(server.port) == server.process.pid
    socket.create_connection((LOOPBACK, server.port)).close()


def test_it_gets_the_environment_that_it_needs(server: OwnedTCPServer) -> None:
    """Some servers are configured by nothing else."""
    arguments = ["-c", LISTEN, LOOPBACK, str(server.port)]
    server.start_on_port(PYTHON, arguments, environment={"GREETING": "hello"})
    while "greeting" not in server.log_tail():
        assert server.process is not None
        assert server.process.poll() is None
    assert server.log_tail() == "greeting: hello"


def test_close_stops_the_process_frees_the_port_and_removes_the_folder() -> None:
    """Nothing is left of a closed server."""
    trial = OwnedTCPServer("trial")
    trial.start_on_port(PYTHON, ["-c", LISTEN, LOOPBACK, str(trial.port)])
    trial.close()
    assert trial.process is not None
    assert trial.process.returncode == -signal.SIGTERM
    assert port_owner(trial.port) is None
    assert not trial.folder.exists()


def test_a_server_that_exits_shows_its_log(server: OwnedTCPServer) -> None:
    """The error of a failed start ends with what the server had to say."""
    with pytest.raises(ServerFailed, match="trial exited with 1\nno room left"):
        server.start_on_port(PYTHON, ["-c", "import sys; sys.exit('no room left')"])


def test_a_server_that_never_listens_is_given_up(
    server: OwnedTCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start has a limit."""
    monkeypatch.setattr(process, "START_LIMIT", 0.1)
    with pytest.raises(ServerFailed, match="did not listen"):
        server.start_on_port(PYTHON, ["-c", WAIT])


def test_another_process_on_the_port_is_not_taken_for_ours(server: OwnedTCPServer) -> None:
    """Tests never talk to a server that somebody else runs."""
    with OwnedTCPServer("stranger") as stranger:
        stranger.start_on_port(PYTHON, ["-c", LISTEN, LOOPBACK, str(stranger.port)])
        assert stranger.process is not None
        server.port = stranger.port
        with pytest.raises(ServerFailed, match=f"process {stranger.process.pid} listens on {server.address}"):
            server.start_on_port(PYTHON, ["-c", WAIT])


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])  # noqa: S104 - that it is refused is the point
def test_a_server_that_listens_on_the_network_is_refused(server: OwnedTCPServer, everywhere: str) -> None:
    """What a test run starts is nobody else's business."""
    listen = (
        LISTEN.replace("int(sys.argv[2]))", "int(sys.argv[2])), family=socket.AF_INET6")
        if everywhere == "::"
        else LISTEN
    )
    with pytest.raises(ServerFailed, match=r"not on 127\.0\.0\.1 alone"):
        server.start_on_port(PYTHON, ["-c", listen, everywhere, str(server.port)])


def test_a_free_port_has_no_owner() -> None:
    """It can be taken."""
    port = free_port()
    assert port_owner(port) is None
    socket.create_server((LOOPBACK, port)).close()
