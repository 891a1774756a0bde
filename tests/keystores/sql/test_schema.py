"""The tables: made once, brought up to date, and left alone by an older release."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, create_engine, inspect, text, update
from sqlalchemy.pool import NullPool

from fieldvault.errors import KeyStoreError
from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql import store as store_module
from fieldvault.keystores.sql.schema import STEPS, Step, meta
from fieldvault.testing.samples import acme, fence, first_key, together


def _add_table(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE IF NOT EXISTS fieldvault_next (id INTEGER PRIMARY KEY)"))


def _version(url: str) -> int:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return (
            connection.scalar(
                meta.select().with_only_columns(meta.c.value).where(meta.c.name == "schema_version")
            )
            or 0
        )


def _tables(url: str) -> set[str]:
    return {
        name
        for name in inspect(create_engine(url, poolclass=NullPool)).get_table_names()
        if name.startswith("fieldvault")
    }


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> Sequence[Step]:
    """A release that knows one schema version more."""
    steps = [*STEPS, _add_table]
    monkeypatch.setattr(store_module, "STEPS", steps)
    return steps


def test_a_new_database_gets_the_newest_version(database_url: str) -> None:
    """Five tables, all with the prefix."""
    SQLKeyStore(database_url).close()
    assert _version(database_url) == len(STEPS)
    assert _tables(database_url) == {
        "fieldvault_changes",
        "fieldvault_fences",
        "fieldvault_keys",
        "fieldvault_meta",
        "fieldvault_tenants",
    }


def test_an_older_store_is_upgraded_with_what_is_in_it(
    database_url: str, request: pytest.FixtureRequest
) -> None:
    """The next release adds what is new; keys, fences and the generation stay."""
    store = SQLKeyStore(database_url)
    key = first_key(store, acme())
    store.shred(fence("globex"))
    store.close()
    request.getfixturevalue("next_release")
    upgraded = SQLKeyStore(database_url)
    assert _version(database_url) == len(STEPS) + 1
    assert "fieldvault_next" in _tables(database_url)
    assert upgraded.keys("acme", None) == [key]
    assert upgraded.fence("globex", None) is not None
    assert upgraded.generation() == 1
    upgraded.close()


def test_an_upgrade_that_was_interrupted_resumes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done of it is done again, or found done, and the version follows at the end."""

    class KilledError(Exception):
        pass

    def killed(connection: Connection) -> None:
        _add_table(connection)
        raise KilledError

    SQLKeyStore(database_url).close()
    monkeypatch.setattr(store_module, "STEPS", [*STEPS, killed])
    with pytest.raises(KilledError):
        SQLKeyStore(database_url)
    assert _version(database_url) == len(STEPS)
    monkeypatch.setattr(store_module, "STEPS", [*STEPS, _add_table])
    SQLKeyStore(database_url).close()
    assert _version(database_url) == len(STEPS) + 1


def test_the_first_tables_are_resumed_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them a killed process had made."""

    class KilledError(Exception):
        pass

    def killed(connection: Connection) -> None:
        meta.create(connection)
        raise KilledError

    monkeypatch.setattr(store_module, "STEPS", [killed])
    with pytest.raises(KilledError):
        SQLKeyStore(database_url)
    monkeypatch.undo()
    store = SQLKeyStore(database_url)
    first_key(store, acme())
    store.close()


@pytest.mark.usefixtures("next_release")
def test_an_upgrade_by_many_at_once_is_made_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changes the tables, the others wait and find it done."""
    monkeypatch.undo()
    SQLKeyStore(database_url).close()
    ran: list[None] = []

    def step(connection: Connection) -> None:
        ran.append(None)
        connection.execute(text("CREATE TABLE fieldvault_next (id INTEGER PRIMARY KEY)"))

    monkeypatch.setattr(store_module, "STEPS", [*STEPS, step])
    together([lambda: SQLKeyStore(database_url).close()] * 6)
    assert len(ran) == 1
    assert _version(database_url) == len(STEPS) + 1


def test_a_newer_store_is_refused(database_url: str) -> None:
    """An older release would not know what it breaks."""
    SQLKeyStore(database_url).close()
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(update(meta).where(meta.c.name == "schema_version").values(value=len(STEPS) + 1))
    with pytest.raises(KeyStoreError, match=f"schema version {len(STEPS) + 1}, this release knows up to"):
        SQLKeyStore(database_url)


def test_tables_hold_all_of_unicode_whatever_the_database_defaults_to(mariadb_url: str) -> None:
    """A MariaDB database made for Latin-1 and tables without transactions is no obstacle."""
    engine = create_engine(mariadb_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {engine.url.database} CHARACTER SET latin1"))
    odd = create_engine(mariadb_url, connect_args={"init_command": "SET default_storage_engine = MyISAM"})
    store = SQLKeyStore(odd)
    set_ = fence(reason="客户要求删除 🗑")
    store.shred(set_)
    assert store.fence("acme", None) == set_
    with odd.connect() as connection:
        kinds = connection.scalars(
            text("SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = DATABASE()")
        ).all()
    assert kinds == ["InnoDB"]
    odd.dispose()


def test_a_user_who_may_not_make_tables_opens_a_store_that_is_there(postgresql_url: str) -> None:
    """Reading and writing is enough once the tables are up to date."""
    owner = SQLKeyStore(postgresql_url)
    engine = create_engine(postgresql_url, poolclass=NullPool)
    tables = ", ".join(_tables(postgresql_url))
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS clerk"))
        connection.execute(text("CREATE ROLE clerk LOGIN"))
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE ON {tables} TO clerk"))
    clerk = SQLKeyStore(engine.url.set(username="clerk").render_as_string())
    key = first_key(clerk, acme())
    assert clerk.shred(fence()) == [key.key_id]
    clerk.close()
    owner.close()
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY clerk"))
        connection.execute(text("DROP ROLE clerk"))
