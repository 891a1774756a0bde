"""Two transactions stopped in the middle of one another, on two connections."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from fieldvault.errors import KeyShredded, KeyStoreError, MovedAway
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.keystores.sql.transactions import Transactions
from fieldvault.testing.samples import acme, add, fence, first_key, record, state_of, together

LEVELS = {
    "sqlite": ["SERIALIZABLE"],
    "postgresql": ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"],
    "mariadb": ["READ COMMITTED", "REPEATABLE READ"],
}
_WAIT = 0.25


@pytest.fixture(params=[(kind, level) for kind, levels in LEVELS.items() for level in levels], ids=" ".join)
def engines(request: pytest.FixtureRequest, emptied: Callable[[str], str]) -> Iterator[Callable[[], Engine]]:
    """Engines of each database at each isolation level, each with connections of its own."""
    kind, level = request.param
    url = emptied(kind)
    made: list[Engine] = []

    def make() -> Engine:
        made.append(create_engine(url, isolation_level=level))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@contextmanager
def stopped_at(
    engine: Engine, statement: str, moment: str = "before_cursor_execute"
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """The engine's connections wait at such a statement; the events: one waits there, and go on."""
    there, go_on = threading.Event(), threading.Event()

    def stop(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.startswith(statement):
            there.set()
            assert go_on.wait(30)

    event.listen(engine, moment, stop)
    try:
        yield there, go_on
    finally:
        go_on.set()


def _still_waits(future: Future[Any]) -> bool:
    """Whether a thread is held up by the other's locks, and not merely slow: it has had time to finish."""
    try:
        future.result(timeout=_WAIT)
    except TimeoutError:
        return True
    except KeyShredded:
        return False
    return False


@pytest.mark.parametrize("subject", [None, "ann"], ids=["tenant", "subject"])
def test_a_shred_waits_for_a_key_in_the_making_and_wipes_it(
    engines: Callable[[], Engine], subject: str | None
) -> None:
    """The key was checked against the fence before there was one, and is committed after."""
    slow = engines()
    maker, shredder = SQLKeyStore(slow), SQLKeyStore(engines())
    first_key(maker, acme())
    key = record(acme(subject), 2 if subject is None else 1)
    replaces = maker.keys("acme", None)[0] if subject is None else None
    with stopped_at(slow, "INSERT INTO fieldvault_keys") as (there, go_on), ThreadPoolExecutor() as threads:
        made = threads.submit(add, maker, key, replaces)
        assert there.wait(30)
        shredded = threads.submit(shredder.shred, fence(subject=subject))
        assert _still_waits(shredded)
        go_on.set()
        assert made.result(30)
        assert key.key_id in shredded.result(30)
    assert [each for each in shredder.keys("acme", subject) if each.wrapped] == []


@pytest.mark.parametrize("subject", [None, "ann"], ids=["tenant", "subject"])
def test_a_key_in_the_making_waits_for_a_shred_and_is_refused(
    engines: Callable[[], Engine], subject: str | None
) -> None:
    """The fence was written before the key was thought of, and is committed while it waits."""
    slow = engines()
    shredder, maker = SQLKeyStore(slow), SQLKeyStore(engines())
    first_key(maker, acme("bob"))
    with stopped_at(slow, "UPDATE fieldvault_keys") as (there, go_on), ThreadPoolExecutor() as threads:
        shredded = threads.submit(shredder.shred, fence(subject=subject))
        assert there.wait(30)
        made = threads.submit(add, maker, record(acme(subject)))
        assert _still_waits(made)
        go_on.set()
        assert list(shredded.result(30)) == []
        with pytest.raises(KeyShredded):
            made.result(30)
    assert list(maker.keys("acme", subject)) == []


def test_a_rotation_waits_for_a_suspension_and_is_late(engines: Callable[[], Engine]) -> None:
    """The key that it would replace is no longer active once it gets to it, and stays suspended."""
    slow = engines()
    suspender, rotator = SQLKeyStore(slow), SQLKeyStore(engines())
    key = first_key(suspender, acme())
    with stopped_at(slow, "UPDATE fieldvault_keys") as (there, go_on), ThreadPoolExecutor() as threads:
        done = threads.submit(
            lambda: suspender.transition(key.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED)
        )
        assert there.wait(30)
        rotated = threads.submit(add, rotator, record(acme(), 2), key)
        assert _still_waits(rotated)
        go_on.set()
        assert done.result(30)
        assert not rotated.result(30)
    assert state_of(rotator, key) is KeyState.SUSPENDED


def test_a_deadlock_is_tried_again(engines: Callable[[], Engine]) -> None:
    """Two transactions that lock each other out both get through, one after the other."""
    engine = engines()
    store = SQLKeyStore(engine)
    slots = [KeySlot("acme"), KeySlot("globex")]
    ids = [first_key(store, slot).key_id for slot in slots]
    transactions, barrier, tries = Transactions(engine), threading.Barrier(2), []

    def crossing(own: bytes, other: bytes) -> None:
        def work(connection: Any) -> None:
            tries.append(own)
            connection.exec_driver_sql(_touch(own))
            if len(tries) <= 2 and engine.dialect.name != "sqlite":
                barrier.wait(30)
            connection.exec_driver_sql(_touch(other))

        transactions.write(work)

    def _touch(key_id: bytes) -> str:
        literal = f"'\\x{key_id.hex()}'" if engine.dialect.name == "postgresql" else f"x'{key_id.hex()}'"
        return f"UPDATE fieldvault_keys SET uses = uses + 1 WHERE key_id = {literal}"

    together([lambda: crossing(ids[0], ids[1]), lambda: crossing(ids[1], ids[0])])
    assert {key.uses for key in store.fetch(ids).records.values()} == {2}
    assert len(tries) > 2 or engine.dialect.name == "sqlite"


def test_first_keys_of_many_tenants_at_once_meet_in_any_order(engines: Callable[[], Engine]) -> None:
    """Processes that enter the same new tenants in different orders all come to an end."""
    store = SQLKeyStore(engines())
    names = [f"tenant {number}" for number in range(30)]

    def make(order: list[str]) -> int:
        return len(store.add_active([Addition(record(KeySlot(name)), None) for name in order]))

    won = together([lambda: make(names), lambda: make(names[::-1]), lambda: make(names[15:] + names[:15])])
    assert sum(won) == len(names)


_LOOK = "SELECT fieldvault_meta.value"

CALLS: dict[str, Callable[[SQLKeyStore, KeyRecord], object]] = {
    "first key": lambda store, _: add(store, record(acme("ann"))),
    "reservation": lambda store, key: store.reserve([key.key_id], 5, limit=10),
    "rewrap": lambda store, key: store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"again"),
}


def test_a_copy_waits_for_a_first_key_and_does_not_begin(engines: Callable[[], Engine]) -> None:
    """The store served when the key was made, and is empty until that is committed."""
    slow = engines()
    maker, copy = SQLKeyStore(slow), SQLKeyStore(engines())
    key = record(acme())
    with stopped_at(slow, _LOOK, "after_cursor_execute") as (there, go_on), ThreadPoolExecutor() as threads:
        made = threads.submit(add, maker, key)
        assert there.wait(30)
        begun = threads.submit(copy.begin_copy)
        assert _still_waits(begun)
        go_on.set()
        assert made.result(30)
        assert begun.result(30) is None
    assert copy.fetch([key.key_id]).records == {key.key_id: key}


@pytest.mark.parametrize("call", CALLS)
def test_a_store_is_moved_away_once_what_is_under_way_is_done(
    engines: Callable[[], Engine], call: str
) -> None:
    """What was answered is there to be copied; whoever comes later is refused."""
    slow = engines()
    user, mover = SQLKeyStore(slow), SQLKeyStore(engines())
    key = first_key(user, acme())
    with stopped_at(slow, _LOOK, "after_cursor_execute") as (there, go_on), ThreadPoolExecutor() as threads:
        done = threads.submit(CALLS[call], user, key)
        assert there.wait(30)
        moved = threads.submit(mover.move_away, token=1)
        assert _still_waits(moved)
        go_on.set()
        assert done.result(30)
        assert moved.result(30) == 0
    keys = list(mover.all_keys("acme"))
    assert keys != [key]
    with pytest.raises(MovedAway):
        CALLS[call](user, keys[0])
    assert list(mover.all_keys("acme")) == keys


def test_a_copier_waits_for_the_one_before_it_and_locks_it_out(engines: Callable[[], Engine]) -> None:
    """The first one's step is whole, and its last."""
    slow = engines()
    first, second = SQLKeyStore(slow), SQLKeyStore(engines())
    token, key = first.begin_copy(), record(acme())
    assert token is not None
    with stopped_at(slow, _LOOK, "after_cursor_execute") as (there, go_on), ThreadPoolExecutor() as threads:
        taken = threads.submit(first.take_over, [key], [], token=token)
        assert there.wait(30)
        begun = threads.submit(second.begin_copy)
        assert _still_waits(begun)
        go_on.set()
        assert taken.result(30) == 1
        assert begun.result(30) not in (None, token)
    assert list(second.all_keys("acme")) == [key]
    with pytest.raises(KeyStoreError, match="another copy to it was begun since"):
        first.take_over([record(acme("ann"))], [], token=token)
