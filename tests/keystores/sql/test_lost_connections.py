"""A connection lost while a statement waits, before a COMMIT, and after it: an error, and safe to repeat."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import NullPool

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import KeyRecord, KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.testing.samples import acme, add, fence, first_key, record, state_of
from tests.keystores.sql.lossy import LossySocket, lossy

NEXT = record(acme(), 2)

WRITES: dict[str, Callable[[SQLKeyStore, KeyRecord], object]] = {
    "reserve": lambda store, key: store.reserve([key.key_id], 10, limit=100),
    "rotation": lambda store, key: add(store, NEXT, key),
    "transition": lambda store, key: store.transition(
        key.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED
    ),
    "rewrap": lambda store, key: store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"again"),
    "shred": lambda store, _: store.shred(fence()),
}

WAITING = {
    "postgresql": "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'",
    "mysql": "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}
OWN = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}
END = {"postgresql": "SELECT pg_terminate_backend(%d)", "mysql": "KILL CONNECTION %d"}


def _name(engine: Engine) -> str:
    return "postgresql" if engine.dialect.name == "postgresql" else "mysql"


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, emptied: Callable[[str], str]) -> str:
    """A database on each server."""
    return emptied(request.param)


@pytest.fixture
def admin(url: str) -> Iterator[Engine]:
    """Connections of the one who ends those of others."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[SQLKeyStore]:
    """A store whose connections are lost."""
    store = SQLKeyStore(url)
    yield store
    store.close()


def _outcome(store: SQLKeyStore, key: KeyRecord) -> object:
    """What a write may change."""
    return list(store.all_keys("acme")), store.generation(), store.fence("acme", None) is None, key.key_id


def _end_the_waiting(admin: Engine) -> None:
    deadline = time.monotonic() + 30
    with admin.connect() as connection:
        while True:
            waiting = connection.scalars(text(WAITING[_name(admin)])).all()
            if waiting:
                break
            assert time.monotonic() < deadline, "nothing waits for the lock"
            # MariaDB shows what it last looked up, and looks again where it was not asked for 0.1 s.
            time.sleep(0.12)
        for number in waiting:
            connection.execute(text(END[_name(admin)] % number))


@pytest.mark.parametrize("write", WRITES)
def test_a_statement_that_waits_is_cut_off(admin: Engine, store: SQLKeyStore, write: str) -> None:
    """Nothing was done; the next call connects anew and does it, once."""
    key = first_key(store, acme())
    before = _outcome(store, key)
    holder = create_engine(admin.url, poolclass=NullPool)
    with holder.begin() as holding, ThreadPoolExecutor(1) as threads:
        holding.execute(text("SELECT key_id FROM fieldvault_keys FOR UPDATE")).all()
        writing = threads.submit(partial(WRITES[write], store, key))
        _end_the_waiting(admin)
        with pytest.raises(KeyStoreError, match="the key store failed"):
            writing.result(30)
    assert _outcome(store, key) == before
    WRITES[write](store, key)
    _done_once(store, key, write)
    holder.dispose()


@pytest.mark.parametrize("write", WRITES)
def test_a_connection_lost_before_the_commit_has_done_nothing(url: str, admin: Engine, write: str) -> None:
    """All statements were executed, and their transaction ends with the connection."""
    engine = create_engine(url)
    store = SQLKeyStore(engine)
    key = first_key(store, acme())
    before = _outcome(store, key)

    def cut(connection: Any) -> None:
        number = connection.scalar(text(OWN[_name(engine)]))
        with admin.connect() as ending:
            ending.execute(text(END[_name(engine)] % number))

    event.listen(engine, "commit", cut)
    with pytest.raises(KeyStoreError, match="the key store failed"):
        WRITES[write](store, key)
    event.remove(engine, "commit", cut)
    assert _outcome(store, key) == before
    WRITES[write](store, key)
    _done_once(store, key, write)
    engine.dispose()


@pytest.fixture
def through(url: str) -> Iterator[tuple[SQLKeyStore, LossySocket]]:
    """A store on the far side of a socket that loses answers."""
    # The path of a socket is short.
    folder = Path(tempfile.mkdtemp(prefix="fv-"))
    with lossy(url, folder) as (far, between):
        store = SQLKeyStore(far.render_as_string(hide_password=False))
        yield store, between
        store.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("write", WRITES)
def test_an_answer_lost_after_the_commit_is_an_error_and_the_write_is_there(
    store: SQLKeyStore, through: tuple[SQLKeyStore, LossySocket], write: str
) -> None:
    """Nobody knows what became of it. Asking again is safe: done twice is done once, or found done."""
    far, between = through
    key = first_key(store, acme())
    between.lose_the_next_commit()
    with pytest.raises(KeyStoreError, match="the key store failed"):
        WRITES[write](far, key)
    assert between.lost.is_set()
    if write == "reserve":
        # Granted, and told to nobody: uses are wasted, and never handed out twice.
        assert store.fetch([key.key_id]).records[key.key_id].uses == 10
        assert far.reserve([key.key_id], 10, limit=100) == {key.key_id: 20}
        return
    _done_once(store, key, write)
    again = WRITES[write](far, key)
    assert again == ([key.key_id] if write == "shred" else False)
    _done_once(store, key, write)


def test_a_first_key_whose_answer_was_lost_is_the_active_one(
    store: SQLKeyStore, through: tuple[SQLKeyStore, LossySocket]
) -> None:
    """Whoever tries again with another key is told to be late, and finds this one."""
    far, between = through
    first_key(store, acme("bob"))
    ours, next_try = record(acme()), record(acme())
    between.lose_the_next_commit()
    with pytest.raises(KeyStoreError):
        add(far, ours)
    assert not add(far, next_try)
    assert list(store.current([acme()]).records) == [ours.key_id]


def _done_once(store: SQLKeyStore, key: KeyRecord, write: str) -> None:
    generation = {"reserve": 0, "rewrap": 0}.get(write, 1)
    assert store.generation() == generation
    assert len(store.changes(0) or ()) == generation
    keys = store.keys("acme", None)
    if write == "rotation":
        assert [(each.key_id, each.state) for each in keys] == [
            (key.key_id, KeyState.RETIRED),
            (NEXT.key_id, KeyState.ACTIVE),
        ]
        return
    (only,) = keys
    assert only.uses == (10 if write == "reserve" else 0)
    assert only.wrapped == {"rewrap": b"again", "shred": None}.get(write, key.wrapped)
    states = {"transition": KeyState.SUSPENDED, "shred": KeyState.DESTROYED}
    assert state_of(store, key) is states.get(write, KeyState.ACTIVE)
