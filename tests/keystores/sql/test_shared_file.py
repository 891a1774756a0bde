"""A key store in the SQLite file of the application, whose transactions may wait for themselves."""

import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from fieldvault import Vault
from fieldvault.errors import KeyStoreError
from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql.engines import BUSY_SECONDS
from fieldvault.kms import LocalKMS
from fieldvault.testing.samples import acme, first_key, record, successor


def _busy_milliseconds(url: str) -> int:
    store = SQLKeyStore(url)
    with store._transactions.engine.connect() as connection:
        seconds: int = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    store.close()
    return seconds


def test_the_lock_is_waited_for_as_long_as_the_url_says(sqlite_url: str) -> None:
    """5 seconds where it does not."""
    assert _busy_milliseconds(sqlite_url) == BUSY_SECONDS * 1000 == 5_000
    assert _busy_milliseconds(f"{sqlite_url}?timeout=0.25") == 250


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_transaction_that_waits_for_its_own_key_is_told_so(
    tmp_path: Path, sqlite_url: str, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, after as long as the lock is waited for, with the way out; then all goes on as before."""
    monkeypatch.setattr("fieldvault.keystores.sql.engines.BUSY_SECONDS", 0.4)
    application = create_engine(sqlite_url, poolclass=NullPool)
    with application.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA journal_mode = {journal}")
        connection.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, note BLOB)")
    kms = LocalKMS.create(tmp_path / "root.keys")
    with Vault(kms=kms, key_store=SQLKeyStore(sqlite_url)) as vault:
        with application.begin() as connection:
            connection.exec_driver_sql("INSERT INTO orders (note) VALUES (NULL)")
            began = time.monotonic()
            with pytest.raises(KeyStoreError) as caught:
                vault.encrypt("x", field="orders.note", tenant="acme")
            waited = time.monotonic() - began
            assert list(vault.tenants()) == []
        # Once, and not a dozen times.
        assert 0.3 < waited < 3
        path = make_url(sqlite_url).database
        assert f"another connection has been writing to {path} for too long" in str(caught.value)
        assert "give the key store a file of its own" in str(caught.value)
        sealed = vault.encrypt("x", field="orders.note", tenant="acme")
        assert vault.decrypt(sealed, field="orders.note", tenant="acme") == "x"


def test_a_transaction_reads_on_beside_a_key_store_in_its_file(sqlite_url: str) -> None:
    """Only writing waits: with a write-ahead log, keys that are there are found."""
    engine = create_engine(sqlite_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = wal")
        connection.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, note BLOB)")
    store = SQLKeyStore(f"{sqlite_url}?timeout=0.05")
    key = first_key(store, acme())
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO orders (note) VALUES (NULL)")
        assert store.fetch([key.key_id]).records == {key.key_id: key}
    assert successor(store, key).slot == record(acme()).slot
    store.close()
