"""The key stores' part of the matrix: ``SQLKeyStore`` and ``DynamoDBKeyStore``, by way of a proxy."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from fieldvault.keys.protocols import KMS
from fieldvault.kms import LocalKMS
from tests.outages.cells import RETRIES
from tests.outages.databases import DatabaseLab
from tests.outages.dynamodb import TableLab
from tests.outages.matrix import DYNAMODB, MARIADB, POSTGRESQL, Row
from tests.outages.playing import holds, params, timeout_of
from tests.servers.mariadb import MariaDBServer
from tests.servers.ministack import MinistackServer
from tests.servers.moto import MotoServer
from tests.servers.postgresql import PostgreSQLServer

Server = PostgreSQLServer | MariaDBServer

FINAL = frozenset({"killed", "gone"})
"""What does not come back by itself."""

_SERVERS = {POSTGRESQL: "postgresql_server", MARIADB: "mariadb_server"}


@pytest.fixture
def open_kms(tmp_path: Path) -> Callable[[], KMS]:
    """One that never fails."""
    kms = LocalKMS.create(tmp_path / "root.keys")
    return lambda: kms


@pytest.mark.parametrize("row", params(POSTGRESQL, MARIADB))
def test_sql(
    row: Row,
    request: pytest.FixtureRequest,
    open_kms: Callable[[], KMS],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On each server; one that is killed is the test's own."""
    monkeypatch.setattr("fieldvault.keystores.sql.stalls.STALL_SECONDS", timeout_of(row))
    with ExitStack() as stack:
        server: Server
        if row.played == "killed":
            server = PostgreSQLServer() if row.backend == POSTGRESQL else MariaDBServer()
            stack.enter_context(server)
            url = server.create_database()
        else:
            server = request.getfixturevalue(_SERVERS[row.backend])
            url = stack.enter_context(server.fresh_database())
        lab = stack.enter_context(closing(DatabaseLab(server, url)))
        holds(row, lab, open_kms, lab.open, comes_back=row.played not in FINAL)


@pytest.mark.parametrize("row", params(DYNAMODB))
def test_dynamodb(
    row: Row,
    request: pytest.FixtureRequest,
    open_kms: Callable[[], KMS],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On MiniStack, and on moto, which enforces policies."""
    monkeypatch.setattr("fieldvault.keystores.dynamodb.table._OUTAGE_SECONDS", RETRIES.deadline)
    server: MotoServer | MinistackServer = request.getfixturevalue(
        "moto_server" if row.played == "denied" else "ministack_server"
    )
    # The SDK slows a client down that was throttled: each process has its own there.
    with closing(TableLab(server, timeout_of(row), shares_client=row.played != "throttled")) as lab:
        holds(row, lab, open_kms, lab.open, comes_back=row.played not in FINAL)
