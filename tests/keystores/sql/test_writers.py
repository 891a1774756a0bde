"""Eight writers at once on every kind of write, at every isolation level that a database may bring along."""
# ruff: noqa: S311 - chance picks who does what

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from fieldvault.errors import ConfigurationError, KeyShredded
from fieldvault.keys.records import TRANSITIONS, KeyRecord, KeySlot, KeyState
from fieldvault.keystores import SQLKeyStore
from fieldvault.testing.samples import THREADS, add, fence, record, together
from tests.keystores.sql.crowd import check

ROUNDS = 25
LIMIT = 120
SLOTS = [KeySlot("acme"), KeySlot("acme", "ann"), KeySlot("globex", "ann")]
DOOMED = [KeySlot("acme", "bob"), KeySlot("globex"), KeySlot("initech", "ann")]

DEFAULTS = {
    "sqlite": ["SERIALIZABLE"],
    "postgresql": ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"],
    "mariadb": ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"],
}


def beginning_at(level: str, plain: str) -> str:
    """The URL of the same database whose sessions begin at an isolation level, as its operator may set it."""
    url = make_url(plain)
    kind = url.get_backend_name()
    if kind == "postgresql":
        default = level.replace(" ", r"\ ")
        url = url.update_query_dict({"options": f"-cdefault_transaction_isolation={default}"})
    elif kind == "mariadb":
        url = url.update_query_dict({"init_command": f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"})
    return url.render_as_string(hide_password=False)


@pytest.fixture(params=[(kind, level) for kind, levels in DEFAULTS.items() for level in levels], ids=" ".join)
def url(request: pytest.FixtureRequest, emptied: Callable[[str], str]) -> str:
    """A database of each kind at each isolation level."""
    kind, level = request.param
    url = beginning_at(level, emptied(kind))
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.get_isolation_level() == level
    return url


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_sessions_that_see_what_is_not_committed_are_refused(
    kind: str, emptied: Callable[[str], str]
) -> None:
    """Whoever set them so."""
    with pytest.raises(ConfigurationError, match="READ COMMITTED is the least"):
        SQLKeyStore(beginning_at("READ UNCOMMITTED", emptied(kind)))


@dataclass
class Writer:
    """Writes what chance picks, and keeps account of what it was told."""

    store: SQLKeyStore
    chance: random.Random
    made: list[bytes] = field(default_factory=list)
    retired: list[bytes] = field(default_factory=list)
    granted: Counter[bytes] = field(default_factory=Counter)
    totals: list[tuple[bytes, int]] = field(default_factory=list)
    moved: list[tuple[bytes, KeyState, KeyState]] = field(default_factory=list)
    shreds: list[KeySlot] = field(default_factory=list)

    def run(self) -> None:
        """Take part, for some rounds."""
        for _ in range(ROUNDS):
            slot = self.chance.choice(SLOTS * 2 + DOOMED)
            write = self.chance.choice([self.rotate] * 2 + [self.reserve] * 3 + [self.move])
            write(slot, list(self.store.keys(slot.tenant, slot.subject)))
            if self.chance.random() < 0.03:
                self.shred(self.chance.choice(DOOMED))

    def rotate(self, slot: KeySlot, there: list[KeyRecord]) -> None:
        """Bring a new key into a slot, or its first."""
        active = next((key for key in there if key.state is KeyState.ACTIVE), None)
        key = record(slot, max((each.version for each in there), default=0) + 1)
        before = self.store.generation()
        try:
            if not add(self.store, key, active):
                return
        except KeyShredded:
            return
        self.made.append(key.key_id)
        if active is not None:
            self.retired.append(active.key_id)
            assert self.store.generation() > before

    def reserve(self, _: KeySlot, there: list[KeyRecord]) -> None:
        """Reserve uses on keys in any state."""
        wanted = [key.key_id for key in there[-3:]]
        self.chance.shuffle(wanted)
        uses = self.chance.randrange(1, 20)
        for key_id, total in self.store.reserve(wanted, uses, limit=LIMIT).items():
            assert total <= LIMIT
            self.granted[key_id] += uses
            self.totals.append((key_id, total))

    def move(self, _: KeySlot, there: list[KeyRecord]) -> None:
        """Change the state of a key."""
        movable = [key for key in there if TRANSITIONS[key.state]]
        if not movable:
            return
        key = self.chance.choice(movable)
        to = self.chance.choice(sorted(TRANSITIONS[key.state]))
        before = self.store.generation()
        if self.store.transition(key.key_id, expect=key.state, to=to):
            self.moved.append((key.key_id, key.state, to))
            assert self.store.generation() > before

    def shred(self, slot: KeySlot) -> None:
        """Shred a scope; from now on nothing of it is alive."""
        before = self.store.generation()
        self.store.shred(fence(slot.tenant, slot.subject))
        if slot not in self.shreds:
            assert self.store.generation() >= before
        self.shreds.append(slot)
        assert [key for key in self.store.keys(slot.tenant, slot.subject) if key.wrapped] == []


@pytest.fixture
def writers(url: str) -> Iterator[list[Writer]]:
    """Eight of them, each with connections of its own."""
    made = [Writer(SQLKeyStore(url), random.Random(number)) for number in range(THREADS)]
    yield made
    for writer in made:
        writer.store.close()


def test_eight_writers_lose_nothing_and_revive_nothing(url: str, writers: list[Writer]) -> None:
    """Whatever each was told has happened once, and nothing else has."""
    watched, done = SQLKeyStore(url), threading.Event()
    generations = [watched.generation()]

    def watch() -> None:
        while not done.is_set():
            generations.append(watched.generation())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        together([writer.run for writer in writers])
    finally:
        done.set()
        watcher.join()
    keys = {key.key_id: key for tenant in watched.tenants() for key in watched.all_keys(tenant)}
    assert check(url) == len(keys)
    assert generations == sorted(generations)

    made = [key_id for writer in writers for key_id in writer.made]
    assert len(made) == len(set(made)) == len(keys) > len(SLOTS)
    assert set(made) == set(keys)

    granted = sum((writer.granted for writer in writers), Counter[bytes]())
    assert {key_id: key.uses for key_id, key in keys.items() if key.uses} == granted
    assert all(key.uses <= LIMIT for key in keys.values())
    # No two were told the same uses.
    totals = [each for writer in writers for each in writer.totals]
    assert len(totals) == len(set(totals))

    moved = [each for writer in writers for each in writer.moved]
    retired = [key_id for writer in writers for key_id in writer.retired]
    for key_id, key in keys.items():
        _one_life(key, [(KeyState.ACTIVE, KeyState.RETIRED)] * retired.count(key_id), moved)

    fences = list(watched.fences())
    shreds = [slot for writer in writers for slot in writer.shreds]
    assert {(slot.tenant, slot.subject) for slot in shreds} == {
        (each.tenant, each.subject) for each in fences
    }
    # A rotation and a transition each raise it by one; a shred does where it found something to do.
    changes = watched.generation() - len(retired) - len(moved)
    assert len(fences) <= changes <= len(shreds)
    watched.close()


def _one_life(
    key: KeyRecord, rotated: list[tuple[KeyState, KeyState]], moved: list[tuple[bytes, KeyState, KeyState]]
) -> None:
    """The steps of a key's life that were told lead from where it began to where it is, each taken once."""
    steps = rotated + [(before, after) for key_id, before, after in moved if key_id == key.key_id]
    left = Counter(before for before, _ in steps)
    left.subtract(after for _, after in steps)
    shredded = KeySlot(key.tenant, key.subject) in DOOMED and key.state is KeyState.DESTROYED
    ends = [state for state in KeyState if left[state] == -1]
    assert ends in ([], [key.state]) or shredded
    assert (left[KeyState.ACTIVE] == 1) is bool(ends)
    assert all(abs(number) <= 1 for number in left.values())
