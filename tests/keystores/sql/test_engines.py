"""Which engines the store takes, and how it works on one that is passed in."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from fieldvault.errors import ConfigurationError, KeyStoreError
from fieldvault.keys.records import KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql.engines import anchored
from fieldvault.testing.samples import acme, fence, first_key, record, successor


@pytest.fixture
def begun_by_a_listener(sqlite_url: str) -> Iterator[Engine]:
    """An engine set up as SQLAlchemy's manual advises for savepoints: a listener begins its transactions."""
    engine = create_engine(sqlite_url)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    yield engine
    engine.dispose()


def _live(store: SQLKeyStore) -> None:
    old = first_key(store, acme())
    new = successor(store, old)
    assert store.reserve([new.key_id], 5, limit=10) == {new.key_id: 5}
    assert store.transition(old.key_id, expect=KeyState.RETIRED, to=KeyState.DESTROYED)
    assert set(store.shred(fence())) == {old.key_id, new.key_id}
    assert store.generation() == 3


@pytest.mark.parametrize("options", [{}, {"poolclass": NullPool}], ids=["pooled", "not pooled"])
def test_an_engine_can_be_shared(database_url: str, options: dict[str, Any]) -> None:
    """The store works on it, and leaves it open when it is closed."""
    engine = create_engine(database_url, **options)
    store = SQLKeyStore(engine)
    _live(store)
    store.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM fieldvault_keys").scalar() == 2
    engine.dispose()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_listener_may_begin_the_transactions(begun_by_a_listener: Engine, mode: str) -> None:
    """In both kinds of journal, a log that has to be cut among them."""
    with sqlite3.connect(begun_by_a_listener.url.database or "") as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.close()
    _live(SQLKeyStore(begun_by_a_listener))


def test_an_engine_that_commits_each_statement_is_refused(database_url: str) -> None:
    """Wherever it was told so: a step of several statements would not be one step."""
    engine = create_engine(database_url, poolclass=NullPool)
    committing = [
        create_engine(database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT"),
        engine.execution_options(isolation_level="AUTOCOMMIT"),
    ]
    if engine.dialect.name == "sqlite":
        committing.append(
            create_engine(database_url, poolclass=NullPool, connect_args={"isolation_level": None})
        )
    for each in committing:
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            SQLKeyStore(each)


def test_an_engine_that_reads_what_is_not_committed_is_refused(mariadb_url: str) -> None:
    """It would hand out keys that are taken back."""
    engine = create_engine(mariadb_url, poolclass=NullPool, isolation_level="READ UNCOMMITTED")
    with pytest.raises(ConfigurationError, match="READ COMMITTED is the least"):
        SQLKeyStore(engine)


@pytest.mark.parametrize(
    "database",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&cache=shared&uri=true",
        create_engine("sqlite://", poolclass=StaticPool),
        create_engine("sqlite+pysqlite://", creator=lambda: sqlite3.connect(""), poolclass=NullPool),
    ],
    ids=["no name", ":memory:", "shared memory", "engine", "temporary"],
)
def test_sqlite_in_memory_is_refused(database: str | Engine) -> None:
    """It is another database in each connection, or none of a second process."""
    with pytest.raises(ConfigurationError, match="use MemoryKeyStore, or a file"):
        SQLKeyStore(database)
    if isinstance(database, Engine):
        database.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "keys.db",
        "",
        "nodatabase://x",
        "sqlite:/keys.db",
        "postgresql+nodriver://x",
        "sqlite:///keys.db?timeout=x",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """With an example of one, and without the text, which may hold a password."""
    with pytest.raises(ConfigurationError, match="the key store wants a database URL such as sqlite:///"):
        SQLKeyStore(url)


def test_a_driver_that_is_not_installed_is_named() -> None:
    """With the extras that bring the tested ones."""
    with pytest.raises(ConfigurationError, match=r"driver pg8000 is not installed.*fieldvault\[postgresql\]"):
        SQLKeyStore("postgresql+pg8000://user:hunter2@localhost/keys")


def test_a_url_without_a_driver_is_told_the_tested_one() -> None:
    """The extra alone would not help: what the URL means without one is another driver."""
    with pytest.raises(
        ConfigurationError,
        match=r"MySQLdb is not installed; install fieldvault\[mariadb\], .* begin with mysql\+pymysql://",
    ):
        SQLKeyStore("mysql://user:hunter2@localhost/keys")


def test_a_database_that_the_store_does_not_know_is_refused() -> None:
    """Its ways to lock are not known either."""
    engine = create_engine("mssql+pymssql://localhost/keys", module=sqlite3)
    with pytest.raises(ConfigurationError, match="SQLite, PostgreSQL, MariaDB and MySQL, not mssql"):
        SQLKeyStore(engine)


def test_an_asynchronous_engine_is_refused(tmp_path: Path) -> None:
    """As an engine or in a URL."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    for database in (create_async_engine(url), create_async_engine(url).sync_engine, url):
        with pytest.raises(ConfigurationError, match="an Engine with a synchronous driver"):
            SQLKeyStore(database)  # type: ignore[arg-type]


def test_a_check_does_not_show_a_password(postgresql_url: str) -> None:
    """Neither one in its place nor one among the driver's options."""
    url = make_url(postgresql_url).set(password="hunter2").update_query_dict({"password": "hunter3"})
    store = SQLKeyStore(url.render_as_string(hide_password=False))
    assert "hunter" not in store.check()
    assert "hunter" not in repr(store)
    assert store.check().startswith("postgresql+psycopg://fieldvault")
    assert store.check().endswith(", 0 keys")
    store.close()


def test_a_server_that_is_not_there_is_an_error_of_the_store(tmp_path: Path) -> None:
    """Told at once, without the password."""
    for driver in ("postgresql+psycopg", "mariadb+pymysql"):
        with pytest.raises(KeyStoreError, match="the key store failed: OperationalError") as caught:
            SQLKeyStore(f"{driver}://user:hunter2@127.0.0.1:1/keys")
        assert "hunter2" not in str(caught.value)
    with pytest.raises(KeyStoreError, match="unable to open database file"):
        SQLKeyStore(f"sqlite:///{tmp_path / 'nowhere' / 'keys.db'}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///keys.db", "sqlite:////etc/shop/keys.db"),
        ("sqlite+pysqlite:///a/keys.db?timeout=3", "sqlite+pysqlite:////etc/shop/a/keys.db?timeout=3"),
        ("sqlite:////var/keys.db", "sqlite:////var/keys.db"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:keys.db?uri=true", "sqlite:///file:keys.db?uri=true"),
        ("postgresql://user:secret@host/keys", "postgresql://user:secret@host/keys"),
        ("no url", "no url"),
    ],
)
def test_the_path_of_an_sqlite_file_is_anchored(url: str, expected: str) -> None:
    """In the configuration's folder; whatever else stays as it is."""
    assert anchored(url, Path("/etc/shop")) == expected


def test_a_key_store_is_not_confused_by_a_folder_of_that_name(tmp_path: Path) -> None:
    """What is no file and no database is an error of the store, not an empty store."""
    (tmp_path / "text.db").write_text("this is no database " * 100)
    for name in (".", "text.db"):
        with pytest.raises(KeyStoreError):
            SQLKeyStore(f"sqlite:///{tmp_path / name}")
    assert record(acme()).slot == acme()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("own", [True, False], ids=["from a URL", "from an engine"])
def test_a_database_without_all_of_unicode_is_refused(postgresql_url: str, encoding: str, own: bool) -> None:
    """Else a tenant's name, or a reason, would be refused once it is written."""
    admin = create_engine(postgresql_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    name = f"in_{encoding.lower()}"
    with admin.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    url = make_url(postgresql_url).set(database=name)
    engine = create_engine(url, poolclass=NullPool)
    try:
        with pytest.raises((ConfigurationError, KeyStoreError)) as caught:
            SQLKeyStore(url.render_as_string(hide_password=False) if own else engine)
        if own:
            assert isinstance(caught.value, ConfigurationError)
            assert f"encoded in {encoding}" in str(caught.value)
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
