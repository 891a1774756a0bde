"""The key stores of the house keep every promise of the public kit."""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import psycopg.errors
import pymysql.err
import pytest
import sqlalchemy.exc
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from fieldvault.errors import KeyStoreError
from fieldvault.keys.protocols import KeyStore
from fieldvault.keystores import MemoryKeyStore, SQLKeyStore
from fieldvault.testing import KeyStoreConformance
from fieldvault.testing.promises.outages import OutagePromises
from fieldvault.testing.vendors import Meaning, VendorError, exceptions_of
from tests.servers.proxy import Hang, Proxy
from tests.servers.tcp import LOOPBACK

_INTERRUPTED = {*dir(OutagePromises), "test_nothing_that_is_shown_holds_a_secret"}
_PASSWORD = "passwordPASSWORDpassword"
_DRIVERS: dict[str, Any] = {
    "sqlite": sqlite3,
    "postgresql": psycopg.errors,
    "mysql": pymysql.err,
    "mariadb": pymysql.err,
}


class TestMemoryKeyStore(KeyStoreConformance):
    """The reference."""

    dies_with_its_process = True

    @pytest.fixture
    def open_store(self) -> Callable[[], KeyStore]:
        """Memory is shared by being the same object."""
        store = MemoryKeyStore()
        return lambda: store

    @pytest.fixture
    def vendor_errors(self) -> Collection[VendorError]:
        """There is nothing behind it."""
        return ()


class TestSQLKeyStore(KeyStoreConformance):
    """SQLite, PostgreSQL and MariaDB."""

    @pytest.fixture
    def open_store(self, emptied_engine: Engine) -> Callable[[], KeyStore]:
        """Another store on the same database."""
        return lambda: SQLKeyStore(emptied_engine)

    @pytest.fixture
    def vendor_errors(self, emptied_engine: Engine) -> Collection[VendorError]:
        """SQLAlchemy's exceptions, and the driver's; not PEP 249's warning, nor what is above both."""
        driver = _DRIVERS[emptied_engine.dialect.name]
        return exceptions_of(sqlalchemy.exc, driver) - {driver.Warning, *driver.Error.__bases__}

    @pytest.fixture
    def meaning_of(self, emptied_engine: Engine) -> Meaning:
        """All that SQLAlchemy raises, and what it wraps: the driver's, and those of drivers for asyncio."""
        driver: Any = emptied_engine.dialect.loaded_dbapi
        # SQLAlchemy 2.1 has it.
        emulated = getattr(sqlalchemy.exc, "EmulatedDBAPIException", driver.Error)
        caught = (sqlalchemy.exc.SQLAlchemyError, driver.Error, emulated)

        def told(error: VendorError) -> type[KeyStoreError] | None:
            return None if isinstance(error, str) or not issubclass(error, caught) else KeyStoreError

        return told


_USERS = {
    "postgresql": (
        "DO $$ BEGIN CREATE ROLE {user} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    ),
    "mariadb": (f"CREATE USER IF NOT EXISTS {{user}}@localhost IDENTIFIED BY '{_PASSWORD}'",),
}
_GRANTS = {
    "postgresql": "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {user}",
    "mariadb": "GRANT SELECT, INSERT, UPDATE ON {database}.* TO {user}@localhost",
}
_REVOCATIONS = {
    "postgresql": ("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {user}",),
    # MariaDB looks at the rights on a database when a connection begins to use it.
    "mariadb": (
        "REVOKE ALL PRIVILEGES ON {database}.* FROM {user}@localhost",
        "KILL HARD CONNECTION USER {user}@localhost",
    ),
}


def _run(url: str, *statements: str) -> None:
    database = make_url(url).database
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.format(user=f"kit_of_{database}", database=database))


class TestInterruptedSQLKeyStore(KeyStoreConformance):
    """PostgreSQL and MariaDB by a URL with a password in it, and a proxy in between."""

    @pytest.fixture(params=["postgresql", "mariadb"])
    def url(self, request: pytest.FixtureRequest, emptied: Callable[[str], str]) -> str:
        """An emptied database, and somebody who may use it."""
        admin = emptied(request.param)
        url = make_url(admin).set(username=f"kit_of_{make_url(admin).database}", password=_PASSWORD)
        _run(admin, *_USERS[request.param], _GRANTS[request.param])
        return url.render_as_string(hide_password=False)

    @pytest.fixture
    def proxy(self, request: pytest.FixtureRequest, url: str) -> Iterator[Proxy]:
        """What stands between the store under test and the server."""
        kind = "postgresql" if url.startswith("postgresql") else "mariadb"
        proxy = Proxy(request.getfixturevalue(f"{kind}_server").socket)
        yield proxy
        proxy.close()

    @pytest.fixture
    def open_store(
        self, url: str, proxy: Proxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], KeyStore]:
        """Another store on the same database, impatient where the server is made slow."""
        if "slow_down" in request.fixturenames:
            monkeypatch.setattr("fieldvault.keystores.sql.stalls.STALL_SECONDS", 0.5)
        address = make_url(url).set(host=LOOPBACK, port=proxy.port, query={"connect_timeout": "2"})
        return partial(SQLKeyStore, address.render_as_string(hide_password=False))

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """The password."""
        return [_PASSWORD]

    @pytest.fixture
    def break_connection(self, proxy: Proxy) -> Callable[[], AbstractContextManager[None]]:
        """Connections are reset, and new ones refused."""
        return proxy.refusing

    @pytest.fixture
    def slow_down(self, proxy: Proxy) -> Callable[[], AbstractContextManager[None]]:
        """Statements are taken, and nothing is answered."""
        return partial(proxy.meeting, Hang())

    @pytest.fixture
    def deny(
        self, request: pytest.FixtureRequest, shared_url: Callable[[str], str]
    ) -> Callable[[], AbstractContextManager[None]]:
        """The rights are revoked, then granted again."""
        kind = request.node.callspec.params["url"]

        @contextmanager
        def revoked() -> Iterator[None]:
            _run(shared_url(kind), *_REVOCATIONS[kind])
            yield
            _run(shared_url(kind), _GRANTS[kind])

        return revoked


for name in dir(KeyStoreConformance):
    if name.startswith("test_") and name not in _INTERRUPTED:
        # All else is told above, without a detour.
        setattr(TestInterruptedSQLKeyStore, name, None)
