"""Databases that many tests share, emptied between them: making one costs more than most tests."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from sqlalchemy import Engine, create_engine, delete, update
from sqlalchemy.pool import NullPool

from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql.schema import changes, fences, keys, meta, tenants
from tests.servers.mariadb import MariaDBServer
from tests.servers.parts import SQLITE
from tests.servers.postgresql import PostgreSQLServer
from tests.servers.record import PartsRecord


@pytest.fixture(scope="module")
def shared_url(
    request: pytest.FixtureRequest, real_parts: PartsRecord, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], str]]:
    """The URL of a database of some kind with the tables made, the same for all tests of a module."""
    with ExitStack() as stack:

        @cache
        def url_of(kind: str) -> str:
            if kind == "sqlite":
                real_parts.exercised[SQLITE.name] = sqlite3.sqlite_version
                url = f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'keys.db'}"
            else:
                server: PostgreSQLServer | MariaDBServer = request.getfixturevalue(f"{kind}_server")
                url = stack.enter_context(server.fresh_database())
            SQLKeyStore(url).close()
            return url

        yield url_of


@pytest.fixture(scope="module")
def shared_engine(shared_url: Callable[[str], str]) -> Iterator[Callable[[str], Engine]]:
    """An engine of such a database, which has compiled most statements already."""
    with ExitStack() as stack:

        @cache
        def engine_of(kind: str) -> Engine:
            engine = create_engine(shared_url(kind))
            stack.callback(engine.dispose)
            return engine

        yield engine_of


@pytest.fixture
def emptied(shared_url: Callable[[str], str]) -> Callable[[str], str]:
    """A shared database, as if nothing had ever been in the store."""

    def url_of(kind: str) -> str:
        engine = create_engine(shared_url(kind), poolclass=NullPool)
        with engine.begin() as connection:
            for table in (keys, tenants, fences, changes):
                connection.execute(delete(table))
            connection.execute(update(meta).where(meta.c.name != "schema_version").values(value=0))
        return shared_url(kind)

    return url_of


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def emptied_url(request: pytest.FixtureRequest, emptied: Callable[[str], str]) -> str:
    """A shared database of each kind in turn."""
    return emptied(request.param)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def emptied_engine(
    request: pytest.FixtureRequest, emptied: Callable[[str], str], shared_engine: Callable[[str], Engine]
) -> Engine:
    """The shared engine of each kind in turn, its database emptied."""
    emptied(request.param)
    return shared_engine(request.param)
