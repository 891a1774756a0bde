"""Several processes on one database: at once, killed, forked."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from fieldvault.keys.records import KeySlot, KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.testing.samples import acme, first_key, record
from tests.keystores.sql.crowd import check, crowd

PROCESSES = 8


def test_of_eight_processes_that_start_at_once_one_makes_the_first_key(database_url: str) -> None:
    """All of them make the tables, one the key, and all see the same one."""
    answers = crowd(database_url, "first_key", PROCESSES)
    assert len(answers) == PROCESSES
    assert len({active for active, _ in answers}) == 1
    assert Counter(won for _, won in answers) == {True: 1, False: PROCESSES - 1}
    assert check(database_url) == 1


def test_eight_processes_rotate_one_tenant_and_lose_nothing(database_url: str) -> None:
    """Every key that a process was told is active was so, once; nobody is stuck in a deadlock."""
    store = SQLKeyStore(database_url)
    first_key(store, acme())
    assert len(crowd(database_url, "rotate", PROCESSES)) == PROCESSES
    keys = store.keys("acme", None)
    assert [key.version for key in keys] == list(range(1, 3 * PROCESSES + 2))
    assert [key.state for key in keys].count(KeyState.ACTIVE) == 1
    assert keys[-1].state is KeyState.ACTIVE
    assert store.generation() == 3 * PROCESSES
    store.close()


def test_a_process_killed_anywhere_leaves_the_old_state_or_the_new(database_url: str) -> None:
    """Never two active keys, material behind a fence, or a change that the generation does not know."""
    SQLKeyStore(database_url).close()
    counts = crowd(database_url, "kill", 10)
    assert len(counts) == 10
    assert counts[-1] > 10, "the processes were killed before they did anything"


def _in_a_child(work: Callable[[], object], meanwhile: Callable[[], object] = bool) -> int:
    """How a forked child ended that did the work while the parent did something else."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    meanwhile()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("own", [True, False], ids=["from a URL", "from an engine"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own(database_url: str, own: bool) -> None:
    """Parent and child work on at the same time, with the same store object."""
    engine = create_engine(database_url)
    store = SQLKeyStore(database_url if own else engine)
    first_key(store, KeySlot("before"))

    def work(name: str) -> None:
        for number in range(20):
            first_key(store, KeySlot(f"{name} {number}"))

    assert _in_a_child(store.generation) == 0
    assert _in_a_child(partial(work, "child"), partial(work, "parent")) == 0
    assert len(list(store.tenants())) == 41
    store.close()
    engine.dispose()


def test_the_store_of_a_closed_parent_still_serves_a_child(sqlite_url: str) -> None:
    """An engine that is gone is not in the way of a fork."""
    store = SQLKeyStore(sqlite_url)
    first_key(store, acme())
    store.close()
    del store
    assert _in_a_child(lambda: None) == 0


def test_opening_a_store_that_is_up_to_date_waits_for_no_writer(sqlite_url: str) -> None:
    """A process can start while another one is in the middle of a long transaction."""
    store = SQLKeyStore(sqlite_url)
    key = first_key(store, acme())
    writer = create_engine(make_url(sqlite_url), poolclass=NullPool)
    with writer.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        other = SQLKeyStore(sqlite_url)
        assert other.keys("acme", None) == [key]
        other.close()
    assert first_key(store, KeySlot("globex")) != record(acme())
    store.close()
