"""Rotating an index key under a running application: nobody is lost from sight, and nothing gets in twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from random import randrange
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    ForeignKey,
    String,
    UniqueConstraint,
    bindparam,
    create_engine,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.keys import indexing
from fieldvault.keys.records import KeyState
from fieldvault.lifecycle import index_keys
from fieldvault.sqlalchemy import BlindIndex, Encrypted, NotUnique, rebuild
from fieldvault.sqlalchemy.recomputing import Recomputer
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World


class Base(DeclarativeBase):
    pass


class User(Base):
    """One e-mail and one badge a user, in every shop."""

    __tablename__ = "users"
    __vault__ = KeyScope(tenant="shop")
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "user"}  # noqa: RUF012 - as SQLAlchemy has it
    __table_args__ = (UniqueConstraint("email_index", name="one_email"),)
    id: Mapped[int] = mapped_column(primary_key=True, default=partial(randrange, 100, 2**31))
    kind: Mapped[str] = mapped_column(String(20), default="user")
    shop: Mapped[str] = mapped_column(String(20))
    email: Mapped[str | None] = mapped_column(Encrypted(String(80), storage="text", bind_row=False))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="email"))
    email_short: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="email", bits=12))
    badge: Mapped[str | None] = mapped_column(Encrypted(String(20), deterministic=True), unique=True)
    rank: Mapped[int] = mapped_column(default=0)


class Admin(User):
    """What it indexes stands in a table of its own, and whose it is in the parent's."""

    __tablename__ = "admins"
    __mapper_args__: Any = {"polymorphic_identity": "admin"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    phone: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))
    phone_index: Mapped[bytes | None] = mapped_column(BlindIndex("phone", normalize="phone"))


USERS: Any = User.__table__
ADA, BOB, EVE = "ada@example.com", "bob@example.com", "eve@example.com"


@pytest.fixture
def shop(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield a shop with two users and an admin, and another shop, on each database in turn."""
    engine = create_engine(database_url)
    world = world_of(Base, engine, make_vault())
    world.save(
        User(id=1, shop="acme", email=ADA, badge="A"),
        User(id=2, shop="acme", email=BOB, badge="B"),
        Admin(id=3, shop="acme", email=None, phone="555-1"),
        User(id=4, shop="globex", email=ADA, badge="A"),
    )
    yield world
    engine.dispose()


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch, shop: World) -> Callable[[], None]:
    """A function that lets as much time pass as every process needs to learn of the new key."""

    def passes() -> None:
        monkeypatch.setattr(indexing, "SETTLING", -timedelta(days=1))
        monkeypatch.setattr(index_keys, "SETTLING", -timedelta(days=1))
        shop.vault.ring.cache.drop(None)

    return passes


def found(shop: World, *criteria: Any, tenant: str = "acme") -> list[int]:
    """Return the ids of the users that a query finds in a tenant's scope."""
    with shop.vault.scope(tenant=tenant), shop.session() as session:
        return sorted(session.scalars(select(User).where(*criteria).with_only_columns(User.id, User.email)))


def all_found(shop: World) -> None:
    """Every user is found by every index."""
    for email, id_ in ((ADA, 1), (BOB, 2)):
        assert found(shop, User.email == email) == [id_]
        assert found(shop, User.email_short == email) == [id_]
    assert found(shop, User.badge.in_(["A", "B"])) == [1, 2]
    assert found(shop, User.email == ADA, tenant="globex") == [4]
    with shop.vault.scope(tenant="acme"), shop.session() as session:
        assert session.scalars(select(Admin).where(Admin.phone == "5551")).one().id == 3


def test_a_rotation_loses_nobody_and_ends_with_one_key(shop: World, settle: Callable[[], None]) -> None:
    """Before it settles, while rows are rebuilt, and when the former key is gone."""
    before = shop.vault.index_rotation("acme")
    assert before.former == ()
    begun = shop.vault.rotate_index("acme")
    assert [key.key_id for key in begun.former] == [before.active.key_id]
    all_found(shop)
    shop.save(User(id=5, shop="acme", email=EVE, badge="E"))
    assert found(shop, User.email == EVE) == [5]
    for early in (partial(rebuild, Base, shop.engine, "acme"), partial(shop.vault.drop_index, "acme")):
        with pytest.raises(errors.ConfigurationError, match="UTC processes may write under the former"):
            early()
    with pytest.raises(errors.ConfigurationError, match="being rotated already"):
        shop.vault.rotate_index("acme")
    settle()
    all_found(shop)
    shop.save(User(id=6, shop="acme", email="f@example.com", badge="F"))
    pages: list[int] = []
    done = rebuild(Base, shop.engine, "acme", progress=pages.append)
    assert (done.rows, done.rewritten, done.cleared, done.left, done.conflicts) == (6, 4, 0, 0, set())
    assert done.is_complete
    assert sum(pages) == 6
    assert rebuild(Base, shop.engine, "acme").rewritten == 0
    all_found(shop)
    (dropped,) = shop.vault.drop_index("acme")
    assert (dropped.key_id, dropped.state) == (before.active.key_id, KeyState.DESTROYED)
    assert shop.vault.index_rotation("acme").former == ()
    all_found(shop)
    assert found(shop, User.email.in_([EVE, "f@example.com"])) == [5, 6]
    assert shop.vault.drop_index("acme") == []


def _flush(shop: World, email: str | None, badge: str | None) -> None:
    shop.save(User(shop="acme", email=email, badge=badge))


def _bulk(shop: World, email: str | None, badge: str | None) -> None:
    shop.execute(insert(USERS), [{"shop": "acme", "kind": "user", "email": email, "badge": badge}])


def _values(shop: World, email: str | None, badge: str | None) -> None:
    shop.execute(insert(USERS).values(shop="acme", kind="user", email=email, badge=badge))


def _flushed_update(shop: World, email: str | None, badge: str | None) -> None:
    with shop.session() as session:
        user = User(shop="acme")
        session.add(user)
        session.flush()
        user.email, user.badge = email, badge
        session.commit()


def _update(shop: World, email: str | None, badge: str | None) -> None:
    with shop.vault.scope(tenant="acme"), shop.engine.begin() as connection:
        connection.execute(insert(USERS).values(id=90, shop="acme", kind="user"))
        connection.execute(update(USERS).where(USERS.c.id == 90).values(email=email, badge=badge))


WRITERS = {
    "flush": _flush,
    "bulk": _bulk,
    "values": _values,
    "flushed update": _flushed_update,
    "update": _update,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("phase", ["begun", "settled", "half rebuilt"])
def test_no_value_gets_in_twice(shop: World, settle: Callable[[], None], phase: str, writer: str) -> None:
    """Whether its row has the token of one key or of the other; and what is new gets in."""
    shop.vault.rotate_index("acme")
    if phase != "begun":
        settle()
    if phase == "half rebuilt":
        _rebuild_one(shop)
    for email, badge in ((ADA, None), (BOB.upper(), None), (None, "A"), (None, "B")):
        with pytest.raises(NotUnique) as caught:
            WRITERS[writer](shop, email, badge)
        assert caught.value.fields == (("users.email",) if email else ("users.badge",))
        assert email is None or email.lower() not in str(caught.value).lower()
    all_found(shop)
    WRITERS[writer](shop, EVE, "E")
    assert len(found(shop, User.email == EVE)) == len(found(shop, User.badge == "E")) == 1
    with pytest.raises(NotUnique):
        WRITERS["flush"](shop, EVE, None)


def _rebuild_one(shop: World) -> None:
    """Bring the first user under the new key, and leave the second."""
    with shop.session() as session:
        user = session.get_one(User, 1)
        user.email, user.badge = None, None
        session.flush()
        user.email, user.badge = ADA, "A"
        session.commit()


def test_an_upsert_finds_its_row_under_either_key(shop: World, settle: Callable[[], None]) -> None:
    """By the unique column itself: the row is updated, and no second one made."""
    shop.vault.rotate_index("acme")
    settle()
    _rebuild_one(shop)
    for badge in ("A", "B", "C"):
        row = {"shop": "acme", "kind": "user", "badge": badge, "rank": 7}
        statement: Any
        if shop.engine.dialect.name in ("mysql", "mariadb"):
            statement = mysql.insert(USERS)
            statement = statement.on_duplicate_key_update(
                badge=statement.inserted.badge, rank=statement.inserted.rank
            )
        else:
            dialect: Any = {"sqlite": sqlite, "postgresql": postgresql}[shop.engine.dialect.name]
            statement = dialect.insert(USERS)
            statement = statement.on_conflict_do_update(
                index_elements=["badge"],
                set_={"badge": statement.excluded.badge, "rank": statement.excluded.rank},
            )
        shop.execute(statement, [row])
    assert found(shop, User.badge.in_(["A", "B"]), User.rank == 7) == [1, 2]
    assert len(found(shop, User.badge == "C")) == 1


def test_writers_in_different_phases_at_once_let_one_of_a_value_in(
    shop: World, settle: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process writes under the former key still, another under the new one, row after row."""
    shop.vault.rotate_index("acme")
    behind: indexing.IndexKeys = shop.vault.ring.index_keys("acme")
    settle()
    ahead = shop.vault.ring.index_keys("acme")
    assert behind.writing is not ahead.writing
    turns = iter(range(10_000))
    monkeypatch.setattr(shop.vault.ring, "index_keys", lambda _: (behind, ahead)[next(turns) % 2])

    def write(number: int) -> str:
        try:
            shop.execute(
                insert(USERS), [{"shop": "acme", "kind": "user", "email": f"n{number % 4}@example.com"}]
            )
        except NotUnique:
            return "refused"
        except Exception as error:  # noqa: BLE001 - a deadlock or a busy database lets nobody in, either
            return type(error).__name__
        return "written"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(32)))
    for number in range(4):
        with shop.vault.scope(tenant="acme"), shop.session() as session:
            emails = session.scalars(select(User.email).where(User.shop == "acme")).all()
        assert emails.count(f"n{number}@example.com") <= 1
    assert 1 <= outcomes.count("written") <= 4
    assert outcomes.count("refused") > 0


def test_a_row_that_changes_while_it_is_rebuilt_is_left_to_the_application(
    shop: World, settle: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before is not written over what came after it."""
    shop.vault.rotate_index("acme")
    settle()
    looked = Recomputer.changes
    changed: list[bool] = []

    def changes(self: Recomputer, page: Any) -> Any:
        found = looked(self, page)
        if not changed and self.table is USERS:
            changed.append(True)
            with shop.session() as session:
                session.get_one(User, 1).email = EVE
                session.get_one(User, 2).badge = None
                session.commit()
        return found

    monkeypatch.setattr(Recomputer, "changes", changes)
    done = rebuild(Base, shop.engine, "acme")
    assert changed
    assert done.is_complete
    assert done.rewritten == 3
    assert found(shop, User.email == ADA) == []
    assert found(shop, User.email == EVE) == [1]
    assert found(shop, User.badge == "B") == []


def test_what_is_there_twice_all_the_same_is_told_and_left(shop: World, settle: Callable[[], None]) -> None:
    """A process that stood still between making a token and writing it may bring that about."""
    token = shop.raw("SELECT email_index FROM users WHERE id = 1")[0][0]
    shop.vault.rotate_index("acme")
    settle()
    _rebuild_one(shop)
    with shop.session() as session:
        session.add(User(id=8, shop="acme", email="other@example.com"))
        session.commit()
    cell = shop.raw("SELECT email FROM users WHERE id = 1")[0][0]
    other: Any = text("UPDATE users SET email = :cell, email_index = :token WHERE id = 8")
    shop.execute(other, {"cell": cell, "token": bytes(token)})
    done = rebuild(Base, shop.engine, "acme")
    assert done.conflicts == {("users", (8,))}
    assert done.left == 1
    assert not done.is_complete
    assert found(shop, User.badge.in_(["A", "B"])) == [1, 2]


def test_joins_and_groups_wait_for_the_end_of_it(shop: World, settle: Callable[[], None]) -> None:
    """While a value has two ciphertexts the database would count it twice."""
    grouped = select(User.badge).where(User.shop == "acme").group_by(User.badge)
    with shop.vault.scope(tenant="acme"):
        assert len(shop.read(grouped)) == 3
        shop.vault.rotate_index("acme")
        with pytest.raises(errors.UnsupportedQuery, match="is being rotated"):
            shop.read(grouped)
        settle()
        rebuild(Base, shop.engine, "acme")
        shop.vault.drop_index("acme")
        assert len(shop.read(grouped)) == 3


def test_only_the_rows_of_one_page_are_lost_to_a_kill(
    shop: World, settle: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is: what was written stays, and the next call goes on."""
    monkeypatch.setattr("fieldvault.sqlalchemy.rebuilding._PAGE", 1)
    shop.vault.rotate_index("acme")
    settle()

    class Killed(BaseException):
        pass

    for _ in range(10):
        pages = iter(range(2))

        def kill(_: int, pages: Iterator[int] = pages) -> None:
            if next(pages, None) is None:
                raise Killed

        try:
            done = rebuild(Base, shop.engine, "acme", progress=kill)
        except Killed:
            all_found(shop)
            continue
        break
    done = rebuild(Base, shop.engine, "acme")
    assert done.is_complete
    all_found(shop)


def test_what_was_dropped_too_early_is_counted(shop: World, settle: Callable[[], None]) -> None:
    """The values are gone; nobody is told that all is well."""
    shop.vault.rotate_index("acme")
    settle()
    _rebuild_one(shop)
    shop.vault.drop_index("acme")
    done = rebuild(Base, shop.engine, "acme")
    assert (done.lost, done.left) == (1, 0)
    assert found(shop, User.badge == "A") == [1]


def test_an_index_that_never_was_cannot_be_rotated(shop: World) -> None:
    """The tenant is named."""
    with pytest.raises(errors.KeyNotFound, match="'nobody' has no active index key"):
        shop.vault.rotate_index("nobody")


def test_no_rebuild_without_a_vault(shop: World) -> None:
    """The models have to be protected first."""

    class Own(DeclarativeBase):
        pass

    with pytest.raises(errors.ConfigurationError, match="have no vault yet"):
        rebuild(Own, shop.engine, "acme")


def _rows_of(shop: World) -> list[Any]:
    with shop.vault.scope(tenant="acme"), shop.session() as session:
        rows = session.execute(
            select(User.id, User.email, User.badge).where(User.shop == "acme").order_by(User.id)
        )
        return [tuple(row) for row in rows]


REFUSED: dict[str, Callable[[Connection], Any]] = {
    "insert": lambda c: c.execute(
        insert(USERS), {"shop": "acme", "kind": "user", "badge": "A", "email": EVE}
    ),
    "insert of many": lambda c: c.execute(
        insert(USERS), [{"shop": "acme", "kind": "user", "badge": badge} for badge in ("X", "A")]
    ),
    "update": lambda c: c.execute(update(USERS).where(USERS.c.id == 2).values(badge="A")),
    "update of many": lambda c: c.execute(
        update(USERS).where(USERS.c.id == bindparam("b")), [{"b": 2, "badge": "Y"}, {"b": 1, "badge": "Y"}]
    ),
    "update of an index": lambda c: c.execute(update(USERS).where(USERS.c.id == 2).values(email=ADA)),
}


@pytest.mark.parametrize("state", ["settled", "rebuilt"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_was_refused_leaves_no_trace(
    shop: World, settle: Callable[[], None], what: str, state: str
) -> None:
    """The caller caught it, and commits what else the transaction did."""
    shop.vault.rotate_index("acme")
    settle()
    if state == "rebuilt":
        rebuild(Base, shop.engine, "acme")
    before = _rows_of(shop)
    with shop.vault.scope(tenant="acme"), shop.engine.begin() as connection:
        connection.execute(update(USERS).where(USERS.c.id == 3).values(rank=5))
        savepoint = connection.begin_nested() if shop.engine.dialect.name == "postgresql" else None
        with pytest.raises(IntegrityError):
            REFUSED[what](connection)
        if savepoint is not None:
            savepoint.rollback()
        connection.execute(update(USERS).where(USERS.c.id == 1).values(rank=6))
    assert _rows_of(shop) == before
    assert found(shop, User.rank > 4) == [1, 3]
    rebuild(Base, shop.engine, "acme")
    shop.vault.drop_index("acme")
    assert _rows_of(shop) == before
    all_found(shop)


def test_a_connection_that_commits_each_statement_is_refused(shop: World, settle: Callable[[], None]) -> None:
    """Of several statements the first might stay alone."""
    shop.vault.rotate_index("acme")
    settle()
    before = _rows_of(shop)
    engine = shop.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(errors.UnsupportedQuery, match="AUTOCOMMIT"):
        connection.execute(insert(USERS), {"shop": "acme", "kind": "user", "badge": "N"})
    assert _rows_of(shop) == before


def test_doors_that_do_not_say_what_they_write_are_refused(shop: World) -> None:
    """At any time, so that nobody learns of it in the midst of a rotation."""
    typed = bindparam("badge", type_=USERS.c.badge.type)
    for statement in (
        text("UPDATE users SET badge = :badge WHERE id = 2"),
        text("SELECT id FROM users WHERE badge = :badge"),
    ):
        with shop.vault.scope(tenant="acme"), pytest.raises(errors.UnsupportedQuery, match="deterministic"):
            shop.execute(statement.bindparams(typed), {"badge": "A"})


def test_rows_that_the_constraint_keeps_apart_are_left_alone(
    database_url: str, make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a constraint of several columns only the rows that agree in the others are looked at."""

    class Own(DeclarativeBase):
        pass

    class Ticket(Own):
        __tablename__ = "tickets"
        __vault__ = KeyScope(tenant="shop")
        __table_args__ = (UniqueConstraint("shop", "customer", "state"),)
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        shop: Mapped[str] = mapped_column(String(20))
        customer: Mapped[int]
        state: Mapped[str] = mapped_column(Encrypted(String(20), deterministic=True))

    engine = create_engine(database_url)
    world = world_of(Own, engine, make_vault())
    tickets: Any = Ticket.__table__
    world.execute(
        insert(tickets), [{"id": n, "shop": "acme", "customer": n, "state": "open"} for n in range(9)]
    )
    world.vault.rotate_index("acme")
    monkeypatch.setattr(indexing, "SETTLING", -timedelta(days=1))
    world.vault.ring.cache.drop(None)
    before = dict(world.raw("SELECT id, state FROM tickets"))
    world.execute(insert(tickets), {"id": 10, "shop": "acme", "customer": 10, "state": "open"})
    after = dict(world.raw("SELECT id, state FROM tickets"))
    assert {id_: after[id_] for id_ in before} == before
    with pytest.raises(NotUnique):
        world.execute(insert(tickets), {"id": 11, "shop": "acme", "customer": 3, "state": "open"})
    engine.dispose()
