"""A database that fails: every failure is a ``KeyStoreError``, none is an answer, and none shows a key."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError, StatementError
from sqlalchemy.pool import NullPool

from fieldvault.errors import KeyStoreError, KeyStoreRefused
from fieldvault.keys.records import KeyRecord, KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql import transactions
from fieldvault.keystores.sql.transactions import Transactions
from fieldvault.testing.samples import acme, add, fence, first_key, record, told_by, wrap_key

KEY = record(acme())
TABLES = ("keys", "tenants", "fences", "changes", "meta")

CALLS: dict[str, Callable[[SQLKeyStore, KeyRecord], object]] = {
    "generation": lambda store, _: store.generation(),
    "changes": lambda store, _: store.changes(0),
    "fetch": lambda store, key: store.fetch([key.key_id]),
    "current": lambda store, _: store.current([acme()]),
    "first key": lambda store, _: add(store, record(acme("ann"))),
    "first key of a tenant": lambda store, _: add(store, KEY),
    "rotation": lambda store, key: add(store, record(acme(), 2), key),
    "transition": lambda store, key: store.transition(
        key.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED
    ),
    "reserve": lambda store, key: store.reserve([key.key_id], 1, limit=10),
    "rewrap": lambda store, key: store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"again"),
    "shred": lambda store, _: store.shred(fence()),
    "fence": lambda store, _: store.fence("acme", "ann"),
    "keys": lambda store, _: store.keys("acme", None),
    "all keys": lambda store, _: list(store.all_keys("acme")),
    "tenants": lambda store, _: list(store.tenants()),
    "lease": lambda store, _: store.declare_lease(30),
    "check": lambda store, _: store.check(),
}
WRITES = ["first key", "rotation", "transition", "reserve", "rewrap", "shred", "lease"]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of each database, to reach behind the store's back."""
    engine = create_engine(database_url, poolclass=NullPool)
    yield engine
    engine.dispose()


def _run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _refused(call: Callable[[], object], *secrets: bytes | None) -> KeyStoreError:
    with pytest.raises(KeyStoreError) as caught:
        call()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    for told in told_by(caught.value):
        for secret in filter(None, secrets):
            # A piece of it: databases shorten what they quote.
            assert secret[:6].hex() not in told
            assert repr(secret[:6])[2:-1] not in told
    return caught.value


def test_tables_that_are_gone_are_no_answer(engine: Engine) -> None:
    """Nothing returns "no such key", "none" or "not first" for what it could not read."""
    store = SQLKeyStore(engine)
    key = first_key(store, acme())
    _run(engine, *(f"DROP TABLE fieldvault_{name}" for name in TABLES))
    for call in CALLS.values():
        _refused(partial(call, store, key), key.wrapped)


def test_a_database_for_reading_only_reads(sqlite_url: str) -> None:
    """And fails to write, with the reason."""
    store = SQLKeyStore(sqlite_url)
    key = first_key(store, acme())
    store.close()
    path = sqlite_url.removeprefix("sqlite:///")
    reader = SQLKeyStore(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert reader.keys("acme", None) == [key]
    for name in WRITES:
        error = _refused(partial(CALLS[name], reader, key), key.wrapped)
        assert "readonly database" in str(error)
    reader.close()


def test_a_full_disk_is_no_duplicate(sqlite_url: str) -> None:
    """The step did not happen, and says why."""
    engine = create_engine(sqlite_url, poolclass=NullPool)
    store = SQLKeyStore(engine)
    key = first_key(store, acme())

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    bulky = replace(record(acme("ann")), wrapped=os.urandom(50_000))
    error = _refused(lambda: add(store, bulky), bulky.wrapped)
    assert "full" in str(error)
    assert list(store.all_keys("acme")) == [key]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_connection_lost_in_the_middle_is_no_duplicate(kind: str, request: pytest.FixtureRequest) -> None:
    """The step did not happen; the next one connects anew."""
    engine = create_engine(request.getfixturevalue(f"{kind}_url"))
    admin = create_engine(engine.url, poolclass=NullPool)
    store = SQLKeyStore(engine)
    key = first_key(store, acme())
    own = text("SELECT pg_backend_pid()" if kind == "postgresql" else "SELECT connection_id()")
    end = "SELECT pg_terminate_backend(%d)" if kind == "postgresql" else "KILL CONNECTION %d"

    @event.listens_for(engine, "before_cursor_execute")
    def _cut(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO fieldvault_keys"):
            _run(admin, end % connection.scalar(own))

    for attempt in (record(acme("ann")), record(acme("bob"))):
        _refused(partial(add, store, attempt), attempt.wrapped)
    event.remove(engine, "before_cursor_execute", _cut)
    assert list(store.all_keys("acme")) == [key]
    first_key(store, acme("ann"))
    engine.dispose()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_connection_lost_between_two_calls_is_not_noticed(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """An engine of our own looks before it leaps: servers restart, firewalls forget."""
    url = request.getfixturevalue(f"{kind}_url")
    store, admin = SQLKeyStore(url), create_engine(url, poolclass=NullPool)
    key = first_key(store, acme())
    ends = {
        "postgresql": "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mariadb": "SELECT id FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id <> connection_id()",
    }
    with admin.begin() as connection:
        ended = connection.execute(text(ends[kind])).scalars().all()
        assert ended not in ([], [0])
        if kind == "mariadb":
            for number in ended:
                connection.execute(text(f"KILL CONNECTION {number}"))
    assert store.keys("acme", None) == [key]
    store.close()


def test_what_the_database_tells_of_a_row_is_not_told(engine: Engine) -> None:
    """A rule of somebody else's that refuses the row: PostgreSQL would quote all of it."""
    store = SQLKeyStore(engine)
    first_key(store, acme())
    rules = {
        "sqlite": "CREATE TRIGGER no BEFORE INSERT ON fieldvault_keys "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "postgresql": "ALTER TABLE fieldvault_keys ADD CONSTRAINT refused CHECK (subject <> 'ann')",
        "mysql": "ALTER TABLE fieldvault_keys ADD CONSTRAINT refused CHECK (subject <> 'ann')",
    }
    rule = rules.get(engine.dialect.name, rules["mysql"])
    _run(engine, rule)
    key = record(acme("ann"))
    assert "refused" in str(_refused(lambda: add(store, key), key.wrapped))
    assert list(store.keys("acme", "ann")) == []


@pytest.mark.parametrize(
    "damage",
    ["state = 'lost'", "purpose = 'fun'", "created_at = 9000000000000000000"],
    ids=["state", "purpose", "time"],
)
def test_a_damaged_record_is_an_error(engine: Engine, damage: str) -> None:
    """What this package never wrote is not guessed at."""
    store = SQLKeyStore(engine)
    key = first_key(store, acme())
    _run(engine, f"UPDATE fieldvault_keys SET {damage}")
    error = _refused(lambda: store.fetch([key.key_id]), key.wrapped)
    assert str(error) == f"the key store's record of the key {key.key_id.hex()} is damaged"
    _refused(lambda: list(store.all_keys("acme")), key.wrapped)


def test_a_database_that_stays_locked_is_given_up(sqlite_url: str) -> None:
    """After a dozen tries, each as long as the engine waits."""
    engine = create_engine(sqlite_url, connect_args={"timeout": 0.01}, poolclass=NullPool)
    store = SQLKeyStore(engine)
    key = first_key(store, acme())
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        error = _refused(lambda: add(store, record(acme("ann"))), key.wrapped)
    assert "database is locked" in str(error)
    first_key(store, acme("ann"))


def test_a_database_that_is_locked_for_a_moment_is_waited_for(sqlite_url: str) -> None:
    """Though the engine itself would not wait."""
    engine = create_engine(sqlite_url, connect_args={"timeout": 0}, poolclass=NullPool)
    store, locked = SQLKeyStore(engine), threading.Event()

    def lock() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            locked.set()
            threading.Event().wait(0.05)

    holder = threading.Thread(target=lock)
    holder.start()
    assert locked.wait(10)
    first_key(store, acme())
    holder.join()


def test_sqlalchemys_own_errors_are_named_without_their_words(engine: Engine) -> None:
    """Its messages quote statements and parameters."""
    transactions = Transactions(engine)

    def fail(_connection: Any) -> None:
        raise StatementError("secret words", "SELECT 1", {"wrapped": b"secret"}, ValueError("secret"))

    assert (
        str(_refused(lambda: transactions.write(fail), b"secret")) == "the key store failed: StatementError"
    )


def test_tables_that_another_process_changes_for_too_long_are_an_error(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB commits at each change of a table, so a lock stands around all of them."""
    monkeypatch.setattr("fieldvault.keystores.sql.transactions._SECONDS", 0)
    holder = create_engine(mariadb_url, poolclass=NullPool)
    with holder.connect() as connection:
        connection.execute(text("SELECT GET_LOCK(CONCAT('fieldvault ', MD5(DATABASE())), 0)"))
        with pytest.raises(KeyStoreError, match="another process has been changing"):
            SQLKeyStore(mariadb_url)
    SQLKeyStore(mariadb_url).close()


def test_an_outage_while_the_log_is_cut_is_an_error(sqlite_url: str) -> None:
    """The shred happened; that its traces are gone is not certain, so it says to ask again."""
    engine = create_engine(sqlite_url, poolclass=NullPool)
    store = SQLKeyStore(engine)
    key = wrap_key(store)
    shredded = threading.Event()

    @event.listens_for(engine, "commit")
    def _committed(_connection: Any) -> None:
        shredded.set()

    @event.listens_for(engine, "do_connect")
    def _connect(*_: Any) -> None:
        if shredded.is_set():
            raise OperationalError("no", {}, OSError("the disk is gone"))

    error = _refused(lambda: store.shred(fence()), key.wrapped)
    assert "ask again" in str(error)


def test_a_refused_row_is_not_shown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subject's name may be a person's address; which constraint refused it is enough."""
    monkeypatch.setattr(transactions, "_ATTEMPTS", 2)
    store = SQLKeyStore(engine)
    person = "zed.private@example.org"
    key = first_key(store, acme(person))
    with pytest.raises(KeyStoreError) as caught:
        add(store, replace(record(acme("bob")), key_id=key.key_id))
    told = [*told_by(caught.value)]
    there = replace(record(acme(person)), version=2)

    _run(engine, *(f"DELETE FROM fieldvault_{name}" for name in TABLES[:-1]))
    _run(engine, "UPDATE fieldvault_meta SET value = 0 WHERE name = 'generation'")
    token = store.begin_copy()
    assert token is not None
    store.take_over([there], [], token=token)
    with pytest.raises(KeyStoreError) as refused:
        store.take_over([replace(record(acme(person)), version=2)], [], token=token)
    told += told_by(refused.value)
    assert [line for line in told if "private" in line or key.key_id.hex() in line.lower()] == []
    if engine.dialect.name != "sqlite":
        assert "fieldvault_keys_" in str(refused.value)


@pytest.mark.parametrize(("code", "kind"), [("42P01", KeyStoreRefused), ("22P05", KeyStoreError)])
def test_a_driver_that_tells_errors_in_fields_is_understood(
    sqlite_url: str, code: str, kind: type[KeyStoreError]
) -> None:
    """As pg8000 does; a row that is among them is not shown."""
    store = SQLKeyStore(sqlite_url)

    def fail(_: object) -> None:
        fields = {"S": "ERROR", "C": code, "M": "refused", "D": "Key (subject)=(zed)"}
        raise DBAPIError("SELECT 1", {}, RuntimeError(fields))

    with pytest.raises(kind, match=code) as caught:
        store._transactions.read(fail)
    assert type(caught.value) is kind
    assert "zed" not in str(caught.value)
    store.close()


def test_a_deadlock_told_in_fields_is_tried_again(sqlite_url: str) -> None:
    """Nothing of it was done."""
    store, tries = SQLKeyStore(sqlite_url), []

    def work(_: object) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise DBAPIError("SELECT 1", {}, RuntimeError({"C": "40P01"}))
        return "done"

    assert store._transactions.read(work) == "done"
    store.close()


def test_what_a_driver_has_no_bytes_for_is_an_error_of_the_store(sqlite_url: str) -> None:
    """A lone surrogate, say: SQLAlchemy passes on what its driver raises, with the text."""
    store = SQLKeyStore(sqlite_url)
    error = _refused(lambda: store.shred(fence(reason="zed \ud800")))
    assert "UnicodeEncodeError" in str(error)
    assert [line for line in told_by(error) if "zed" in line] == []
    store.close()
