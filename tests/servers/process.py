"""A server process that the test run owns: its folder, its start, its readiness, its end."""

import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

LAUNCHER = Path(__file__).with_name("launch.py")
START_LIMIT = 60.0
STOP_LIMIT = 15.0


class ServerFailed(RuntimeError):
    """The server did not come up; the message holds the end of its log."""


def unprivileged_user(*candidates: str) -> str | None:
    """Return the user a server should run as: None (stay as we are) unless we are root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*candidates, "nobody") if name in known)


class OwnedServer:
    """A server, by itself on a unix socket, in a private folder, which is removed when the server is closed.

    Args:
        name: Names the folder and the errors.
        user: Who the server runs as; None for the present user.
        death: What the server is sent when it is closed, and by the kernel when this process dies first.
    """

    def __init__(self, name: str, *, user: str | None, death: signal.Signals) -> None:
        self.name = name
        self.user = user
        self.death = death
        self.folder = Path(tempfile.mkdtemp(prefix=f"fieldvault-{name}-"))
        self.log = self.folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        if user is not None:
            shutil.chown(self.folder, user)

    def command(self, program: Path, *arguments: str) -> list[str]:
        """Return the command that runs the program through the launcher."""
        return [
            sys.executable, "-IS", str(LAUNCHER),
            str(os.getpid()), self.death.name, self.user or "", str(program), *arguments,
        ]  # fmt: skip

    def prepare(self, program: Path, *arguments: str) -> None:
        """Run a set-up program to its end, as the server's user.

        Raises:
            ServerFailed: It did not exit with 0.
        """
        done = subprocess.run(
            self.command(program, *arguments),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(
                f"{self.name}: {program.name} exited with {done.returncode}\n{done.stdout}{done.stderr}"
            )

    def start(self, program: Path, arguments: Sequence[str], *, listens_on: Path) -> None:
        """Start the server and return once it, and no other process, listens on the socket.

        Raises:
            ServerFailed: It exited, or did not listen within the limit.
        """
        self.launch(program, arguments)
        self.wait_until_listening(partial(listening_process, listens_on), place=str(listens_on))

    def launch(
        self, program: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the process through the launcher, with more environment variables where given."""
        # A server in Python is no part of what coverage measures.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(program, *arguments),
                cwd=self.folder,
                env={**inherited, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_listening(self, listener: Callable[[], int | None], *, place: str) -> None:
        """Return once the process that was launched, and no other, is the listener at the place.

        Raises:
            ServerFailed: It exited, or did not listen within the limit, or somebody else does.
        """
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT
        while (found := listener()) is None:
            if self.process.poll() is not None:
                raise ServerFailed(f"{self.name} exited with {self.process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.name} did not listen within {START_LIMIT:.0f} s\n{self.log_tail()}"
                )
            time.sleep(0.02)
        if found != self.process.pid:
            raise ServerFailed(f"{self.name}: process {found} listens on {place}, not {self.process.pid}")

    def log_tail(self) -> str:
        """Return the last lines of what the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all its processes for the length of a block: the kernel takes connections, nobody answers."""
        assert self.process is not None
        # The parent first and last: meanwhile it neither begins children nor forgets those that end.
        parent = self.process.pid
        os.kill(parent, signal.SIGSTOP)
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
        children = [int(child) for child in listed.split()]
        for child in children:
            os.kill(child, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (*children, parent):
                os.kill(process, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the server: nothing of it is left but its folder."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Stop the server and remove its folder; whatever ignores the signal is killed."""
        if self.process is not None:
            self.process.send_signal(self.death)
            try:
                self.process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def listening_process(path: Path) -> int | None:
    """Return the process that listens on the unix socket, or None while nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, _, _ = struct.unpack("3i", credentials)
    return int(process)
