"""What a shred leaves on the disk, and what it costs."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from fieldvault.errors import KeyStoreError
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.testing.samples import acme, fence, record, successor

MODES = ["delete", "truncate", "persist", "wal"]


def _bytes(path: Path) -> bytes:
    """Everything that SQLite keeps of a database: the file, its log, its journal."""
    return b"".join(each.read_bytes() for each in sorted(path.parent.glob(f"{path.name}*")))


def _engine(path: Path, mode: str) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # Whatever this build of SQLite does by default.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA synchronous = OFF")

    return engine


def _filled(store: SQLKeyStore) -> tuple[list[KeyRecord], list[KeyRecord]]:
    """Keys of many tenants, in pages that were split; those of the tenant to be shredded, and the others."""
    size = 200
    doomed: list[KeyRecord] = []
    others: list[KeyRecord] = []
    for number in range(24):
        keys = [
            replace(record(KeySlot(f"tenant {number}")), wrapped=bytes([number]) + record(acme()).key_id * 12)
        ]
        keys.append(replace(record(acme(f"subject {number}")), wrapped=record(acme()).key_id * (size // 16)))
        store.add_active([Addition(key, None) for key in keys])
        others += keys
        if number % 3 == 0:
            version = len(doomed) + 1
            key = replace(
                record(KeySlot("doomed"), version),
                wrapped=record(acme()).key_id * (400 if number == 12 else 6),
            )
            store.add_active([Addition(key, doomed[-1].key_id if doomed else None)])
            doomed.append(key)
    return doomed, others


@pytest.mark.parametrize("how", ["shred", "destroy"])
@pytest.mark.parametrize("own", [True, False], ids=["from a URL", "from an engine"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_a_destroyed_key_is_left_in_sqlites_files(
    tmp_path: Path, mode: str, own: bool, how: str
) -> None:
    """Neither in free pages nor in the write-ahead log or a rollback journal that is kept."""
    path = tmp_path / "keys.db"
    engine = _engine(path, mode)
    store = SQLKeyStore(engine)
    doomed, others = _filled(store)
    pieces = [(key.wrapped or b"")[-16:] for key in doomed]
    before = _bytes(path)
    assert all(piece in before for piece in pieces)
    if own:
        engine.dispose()
        store = SQLKeyStore(f"sqlite:///{path}")
    if how == "shred":
        store.shred(fence("doomed"))
    else:
        for key in store.keys("doomed", None):
            assert store.transition(key.key_id, expect=key.state, to=KeyState.DESTROYED)
    after = _bytes(path)
    assert [piece for piece in pieces if piece in after] == []
    with closing(sqlite3.connect(path)) as connection:
        kept = {row[0] for row in connection.execute("SELECT wrapped FROM fieldvault_keys")}
    assert kept == {None, *(key.wrapped for key in others)}
    store.close()
    engine.dispose()


def test_a_log_that_is_in_use_makes_a_shred_ask_for_another_try(tmp_path: Path) -> None:
    """The keys are destroyed, and said not to be gone from the disk; once the reader is done, they are."""
    path = tmp_path / "keys.db"
    store = SQLKeyStore(engine := _engine(path, "wal"))
    key = replace(record(KeySlot("doomed")), wrapped=record(acme()).key_id * 6)
    store.add_active([Addition(key, None)])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM fieldvault_keys").fetchone()

        @event.listens_for(engine, "checkout")
        def _impatient(connection: Any, *_: Any) -> None:
            connection.execute("PRAGMA busy_timeout = 10")

        with pytest.raises(KeyStoreError, match=r"still in the write-ahead log .* ask again"):
            store.shred(fence("doomed"))
        assert store.keys("doomed", None)[0].wrapped is None
        assert (key.wrapped or b"") in _bytes(path)
    assert store.shred(fence("doomed")) == [key.key_id]
    assert (key.wrapped or b"") not in _bytes(path)
    engine.dispose()


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that are executed, once for each set of parameters."""
    statements: list[str] = []

    def count(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        statements.extend([statement] * (len(parameters) if many else 1))

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count)


@pytest.fixture
def engine(emptied_url: str) -> Iterator[Engine]:
    """An engine of each database, to count its statements."""
    engine = create_engine(emptied_url)
    yield engine
    engine.dispose()


def test_a_tenants_shred_costs_the_same_whatever_the_number_of_subjects(engine: Engine) -> None:
    """The statements are the same, and no subject's row is touched."""
    store = SQLKeyStore(engine)
    costs = []
    for subjects in (0, 1, 3_000):
        tenant = f"tenant of {subjects}"
        parent = record(KeySlot(tenant))
        keys = [record(KeySlot(tenant, f"{number}"), parent=parent.key_id) for number in range(subjects)]
        store.add_active([Addition(key, None) for key in (parent, *keys)])
        with counted(engine) as statements:
            store.shred(fence(tenant))
        costs.append(len(statements))
        left = [key for key in store.all_keys(tenant) if key.subject is not None]
        assert {key.key_id: key for key in left} == {key.key_id: key for key in keys}
    assert len(set(costs)) == 1
    assert costs[0] <= 12


@pytest.mark.parametrize(
    ("read", "cost"),
    [
        (lambda store, keys: store.fetch([key.key_id for key in keys]), 1),
        (lambda store, keys: store.current([key.slot for key in keys]), 1),
        (lambda store, _: store.generation(), 1),
        (lambda store, _: store.changes(0), 1),
        (lambda store, _: store.fence("acme", "ann"), 1),
    ],
    ids=["fetch", "current", "generation", "changes", "fence"],
)
def test_a_read_is_one_statement(
    engine: Engine, read: Callable[[SQLKeyStore, list[KeyRecord]], object], cost: int
) -> None:
    """Whatever the number of keys on a page."""
    store = SQLKeyStore(engine)
    keys = [record(acme(f"subject {number}")) for number in range(1_000)]
    store.add_active([Addition(key, None) for key in keys])
    with counted(engine) as statements:
        read(store, keys)
    assert len(statements) == cost


def test_a_rotation_in_a_large_store_looks_at_its_own_slot_only(engine: Engine) -> None:
    """A dozen statements at most, each answered from an index."""
    store = SQLKeyStore(engine)
    keys = [record(acme(f"subject {number}")) for number in range(1_000)]
    store.add_active([Addition(key, None) for key in keys])
    with counted(engine) as statements:
        successor(store, keys[500])
    assert len(statements) <= 13
