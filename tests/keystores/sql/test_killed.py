"""A process killed at any line of the SQL key store leaves the old state or the new, on SQLite."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.testing.samples import acme, fence, first_key, record, wrap_key
from tests.killing import killed_at

PACKAGE = ["fieldvault/keystores/sql/"]
# Where every statement and every end of a transaction is asked for; the other modules only prepare them.
DECIDING = [f"fieldvault/keystores/sql/{name}.py" for name in ("store", "transactions", "writing")]
ACTIVE, NEW, SUBJECT = record(acme()), record(acme(), 2), record(acme("ann"))

STEPS: dict[str, Callable[[SQLKeyStore], object]] = {
    "rotate": lambda store: store.add_active([Addition(NEW, ACTIVE.key_id), Addition(SUBJECT, None)]),
    "destroy": lambda store: store.transition(ACTIVE.key_id, expect=KeyState.ACTIVE, to=KeyState.DESTROYED),
    "shred": lambda store: store.shred(fence()),
}


def _state(path: Path) -> object:
    """Everything in the database but the names of tenants, which are entered before their keys are."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = ("fieldvault_keys", "fieldvault_changes", "fieldvault_meta")
        everything = [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables
        ]
        fences = connection.execute("SELECT tenant, subject FROM fieldvault_fences").fetchall()
        return everything, fences


@pytest.mark.parametrize(("step", "mode"), [("rotate", "delete"), ("shred", "wal")])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_at_any_line_leaves_the_old_state_or_the_new(tmp_path: Path, step: str, mode: str) -> None:
    """And what the killed process did can be done again by the next."""
    path, before = tmp_path / "keys.db", tmp_path / "before.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    # Without a pool, so that nothing of one file is carried to the next.
    store = SQLKeyStore(create_engine(f"sqlite:///{path}", poolclass=NullPool))
    store.add_active([Addition(ACTIVE, None)])
    wrap_key(store)
    shutil.copy(path, before)
    old = _state(path)
    STEPS[step](store)
    new = _state(path)
    assert new != old
    seen = []
    for line in count(1):
        for left in tmp_path.glob("keys.db*"):
            left.unlink()
        shutil.copy(before, path)
        if not killed_at(line, DECIDING, lambda: STEPS[step](store)):
            break
        state = _state(path)
        assert state in (old, new), f"killed at line {line}"
        seen.append(state)
        if line % 10 == 0:
            STEPS[step](store)
            assert _state(path) == new
    assert seen.index(new) > 20, "it was killed before and after the commit"
    assert _state(path) == new


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_at_any_line_of_making_the_tables_leaves_a_store_to_open(tmp_path: Path) -> None:
    """Whatever was made of them."""
    path = tmp_path / "keys.db"
    url = f"sqlite:///{path}"
    for line in count(1, 7):
        for left in tmp_path.glob("keys.db*"):
            left.unlink()
        killed = killed_at(line, PACKAGE, lambda: SQLKeyStore(url))
        store = SQLKeyStore(url)
        first_key(store, acme())
        store.close()
        if not killed:
            break
    assert line > 50
