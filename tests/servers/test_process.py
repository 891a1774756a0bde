"""A server of ours comes up as ours, says why when it does not, and goes when told."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import process
from tests.servers.process import LAUNCHER, OwnedServer, ServerFailed, listening_process

PYTHON = Path(sys.executable)
LISTEN = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
time.sleep(60)
"""


@pytest.fixture
def server() -> Iterator[OwnedServer]:
    """Yield a server that is not started yet."""
    with OwnedServer("trial", user=None, death=signal.SIGTERM) as trial:
        yield trial


def test_start_returns_once_the_process_listens(server: OwnedServer) -> None:
    """The listener is the very process that was started."""
    path = server.folder / "socket"
    server.start(PYTHON, ["-c", LISTEN, str(path)], listens_on=path)
    assert server.process is not None
    assert listening_process(path) == server.process.pid


def test_close_stops_the_process_and_removes_the_folder() -> None:
    """Nothing is left of a closed server."""
    trial = OwnedServer("trial", user=None, death=signal.SIGTERM)
    path = trial.folder / "socket"
    trial.start(PYTHON, ["-c", LISTEN, str(path)], listens_on=path)
    trial.close()
    assert trial.process is not None
    assert trial.process.returncode == -signal.SIGTERM
    assert not trial.folder.exists()


def test_a_server_that_ignores_the_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing never hangs on a server that does not want to go."""
    monkeypatch.setattr(process, "STOP_LIMIT", 0.1)
    trial = OwnedServer("trial", user=None, death=signal.SIGTERM)
    path = trial.folder / "socket"
    stubborn = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{LISTEN}"
    trial.start(PYTHON, ["-c", stubborn, str(path)], listens_on=path)
    trial.close()
    assert trial.process is not None
    assert trial.process.returncode == -signal.SIGKILL


def test_a_server_that_exits_shows_its_log(server: OwnedServer) -> None:
    """The error of a failed start ends with what the server had to say."""
    with pytest.raises(ServerFailed, match="trial exited with 1\nno room left"):
        server.start(
            PYTHON, ["-c", "import sys; sys.exit('no room left')"], listens_on=server.folder / "socket"
        )


def test_a_server_that_never_listens_is_given_up(
    server: OwnedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start has a limit."""
    monkeypatch.setattr(process, "START_LIMIT", 0.1)
    with pytest.raises(ServerFailed, match="did not listen"):
        server.start(PYTHON, ["-c", "import time; time.sleep(60)"], listens_on=server.folder / "socket")


def test_another_process_on_the_socket_is_not_taken_for_ours(server: OwnedServer) -> None:
    """Tests never talk to a server that somebody else runs."""
    path = server.folder / "socket"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        with pytest.raises(ServerFailed, match=f"process {os.getpid()} listens"):
            server.start(PYTHON, ["-c", "import time; time.sleep(60)"], listens_on=path)


def test_a_failing_preparation_shows_its_output(server: OwnedServer) -> None:
    """A set-up program that fails is not passed over."""
    with pytest.raises(ServerFailed, match="exited with 3\nhalf way"):
        server.prepare(PYTHON, "-c", "import sys; print('half way'); sys.exit(3)")


def test_the_launcher_starts_nothing_for_a_parent_that_is_gone() -> None:
    """A parent that died before the kernel could promise leaves no server behind."""
    command = [
        sys.executable,
        "-IS",
        str(LAUNCHER),
        "1",
        "SIGKILL",
        "",
        sys.executable,
        "-c",
        "print('started')",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the parent is gone" in done.stderr
