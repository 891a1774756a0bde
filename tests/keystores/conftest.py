"""Databases that many tests share, emptied between them: making one costs more than most tests."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, update
from sqlalchemy.pool import NullPool

from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql.schema import changes, fences, keys, meta, tenants
from tests.servers.mariadb import MariaDBServer
from tests.servers.parts import SQLITE
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.record import PartsRecord


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def shared_url(
    request: pytest.FixtureRequest, real_parts: PartsRecord, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database of each kind in turn, with the tables made, for all tests of a module."""
    if request.param == "sqlite":
        real_parts.exercised[SQLITE.name] = sqlite3.sqlite_version
        folder: Path = tmp_path_factory.mktemp("sqlite")
        SQLKeyStore(url := f"sqlite:///{folder / 'keys.db'}").close()
        yield url
        return
    server: PostgreSQLServer | MariaDBServer = request.getfixturevalue(f"{request.param}_server")
    with server.fresh_database() as url:
        SQLKeyStore(url).close()
        yield url


@pytest.fixture
def emptied_url(shared_url: str) -> str:
    """The shared database, as if nothing had ever been in the store."""
    engine = create_engine(shared_url, poolclass=NullPool)
    with engine.begin() as connection:
        for table in (keys, tenants, fences, changes):
            connection.execute(delete(table))
        connection.execute(update(meta).where(meta.c.name != "schema_version").values(value=0))
    engine.dispose()
    return shared_url
