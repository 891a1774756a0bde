"""The key store's part of the matrix: ``SQLKeyStore`` on PostgreSQL, by way of a proxy."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fieldvault.keystores import SQLKeyStore
from fieldvault.kms import LocalKMS
from tests.outages import matrix
from tests.outages.cells import CONNECT, PATIENCE, SILENT, TIMEOUT, played, prepared, recovered
from tests.outages.matrix import SERVED, Row
from tests.outages.test_matrix import compare
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.proxy import Fault, Hang, Proxy, ResetAfter
from tests.servers.tcp import LOOPBACK


class StoreLab:
    """A database of its own on a server, and a proxy before it."""

    def __init__(self, server: PostgreSQLServer, url: str) -> None:
        self._server = server
        self.proxy = Proxy(server.folder / ".s.PGSQL.5432")
        address = make_url(url).set(
            host=LOOPBACK, port=self.proxy.port, query={"connect_timeout": str(CONNECT)}
        )
        self._url = address.render_as_string(hide_password=False)
        self._opened: list[SQLKeyStore] = []

    def open(self) -> SQLKeyStore:
        """A process's key store."""
        self._opened.append(SQLKeyStore(self._url))
        return self._opened[-1]

    def close(self) -> None:
        """Close all of them, and the proxy."""
        for each in self._opened:
            each.close()
        self.proxy.close()

    def failure(self, played: str) -> AbstractContextManager[None]:
        """What the table calls so."""
        if played == "refused":
            return self.proxy.refusing()
        if played == "killed":
            return self._killed()
        if played == "stopped":
            return self._stopped()
        faults: dict[str, Fault] = {"reset": ResetAfter(5), "silent": Hang()}
        return self.proxy.meeting(faults[played])

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Every process of it: a connection has one of its own."""
        assert self._server.process is not None
        parent = self._server.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
        processes = [parent, *map(int, children)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    @contextmanager
    def _killed(self) -> Iterator[None]:
        process = self._server.process
        assert process is not None
        process.kill()
        process.wait()
        yield


def rows() -> Sequence[object]:
    """The rows as parameters."""
    return [pytest.param(row, id=row.failure) for row in matrix.KEY_STORE]


@pytest.mark.parametrize("row", rows())
def test_sql(
    row: Row, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL; one that is killed is the test's own."""
    limit = TIMEOUT if row.played in SILENT else PATIENCE
    monkeypatch.setattr("fieldvault.keystores.sql.stalls.STALL_SECONDS", limit)
    kms = LocalKMS.create(tmp_path / "root.keys")
    if row.played == "killed":
        with PostgreSQLServer() as server:
            holds(row, kms, server, server.url("postgres"))
        return
    server = request.getfixturevalue("postgresql_server")
    holds(row, kms, server, request.getfixturevalue("postgresql_url"))


def holds(row: Row, kms: LocalKMS, server: PostgreSQLServer, url: str) -> None:
    """Play all cells, compare, and see that they work again when the failure is over."""
    with closing(StoreLab(server, url)) as lab:
        cells = prepared(lambda: kms, lab.open)
        with lab.failure(row.played):
            outcomes = played(cells)
        compare(row, cells, outcomes)
        if row.played != "killed":
            assert recovered(cells) == {cell.name: SERVED for cell in cells}
