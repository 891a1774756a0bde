"""A server that the test run owns and that listens on a port of this machine's loopback, nowhere else."""

import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.servers.process import OwnedServer, ServerFailed

LOOPBACK = "127.0.0.1"
_LISTENING = "0A"


class Listener(NamedTuple):
    """A listening TCP socket: its address as the kernel writes it, and the inode that names it."""

    address: str
    inode: str


class OwnedTCPServer(OwnedServer):
    """A server on a port that was free when this object was made.

    Args:
        name: Names the folder and the errors.
        death: What the server is sent when it is closed, and by the kernel when this process dies first.
    """

    def __init__(self, name: str, *, death: signal.Signals = signal.SIGTERM) -> None:
        super().__init__(name, user=None, death=death)
        self.port = free_port()

    @property
    def address(self) -> str:
        """Where it listens, as host and port."""
        return f"{LOOPBACK}:{self.port}"

    def start_on_port(
        self, program: Path, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the server and return once it, and no other process, listens on the port.

        Raises:
            ServerFailed: As ``wait_until_on_port``.
        """
        self.launch(program, arguments, environment)
        self.wait_until_on_port()

    def wait_until_on_port(self) -> None:
        """Return once the process that was launched, and no other, listens on the port.

        Raises:
            ServerFailed: It exited, or did not listen within the limit, or not on the loopback alone.
        """
        self.wait_until_listening(partial(port_owner, self.port), place=self.address)
        abroad = [each.address for each in listeners(self.port) if each.address != _kernel_address(LOOPBACK)]
        if abroad:
            raise ServerFailed(f"{self.name} listens on {', '.join(abroad)}, not on {LOOPBACK} alone")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listeners(port: int) -> list[Listener]:
    """Return what listens on the port, on whatever address."""
    found = []
    for table in filter(Path.exists, (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))):
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            members = line.split()
            address, _, number = members[1].partition(":")
            if members[3] == _LISTENING and int(number, 16) == port:
                found.append(Listener(address, members[9]))
    return found


def port_owner(port: int) -> int | None:
    """Return the process that listens on the port, or None while nobody does; 0 for one of another user."""
    inodes = {each.inode for each in listeners(port)}
    if not inodes:
        return None
    return next((process for process in _processes() if inodes <= _sockets(process)), 0)


def _processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _sockets(process: int) -> set[str]:
    """The inodes of a process's sockets; none of a process that is gone or another user's."""
    found = set()
    # A process may end, or close what it had open, while it is looked at.
    with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
        for entry in Path("/proc", str(process), "fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def _kernel_address(host: str) -> str:
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}"
