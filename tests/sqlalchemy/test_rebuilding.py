"""What ``rebuild`` takes in, what it leaves to others, and whom it waits for."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.keys import indexing
from fieldvault.keys.records import KeyState
from fieldvault.lifecycle import index_keys
from fieldvault.lifecycle.states import change
from fieldvault.sqlalchemy import BlindIndex, Encrypted, protect, rebuild, rebuilding, writers
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World

SHOP = String(20).with_variant(mysql.VARCHAR(20, collation="utf8mb4_general_ci"), "mysql", "mariadb")
"""The name of a shop, by a collation that takes "ACME" for "acme" where there is such a one by default."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Yield each database in turn; an SQLite that is busy says so at once, and no lock holds up a test."""
    quick: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": 0.01},
        "postgresql": {"options": "-c lock_timeout=2s"},
        "mariadb": {"init_command": "SET SESSION innodb_lock_wait_timeout = 2"},
    }
    made = create_engine(database_url, connect_args=quick[make_url(database_url).get_backend_name()])
    yield made
    made.dispose()


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    """A function that lets as much time pass as every process needs to learn of the new key."""

    def passes(world: World) -> None:
        for module in (indexing, index_keys):
            monkeypatch.setattr(module, "SETTLING", -timedelta(days=1))
        world.vault.ring.cache.drop(None)

    return passes


@pytest.fixture
def rotate(settle: Callable[[World], None]) -> Callable[[World], None]:
    """A function that brings a rotation to where rows may be rebuilt."""

    def begins(world: World) -> None:
        world.vault.rotate_index("acme")
        settle(world)

    return begins


def code() -> Any:
    """Return the type of a deterministic column: what is missed is never read again."""
    return Encrypted(String(20), deterministic=True)


def shop_model() -> tuple[type[DeclarativeBase], Any]:
    """Return a base, and a model whose rows are a shop's."""

    class Base(DeclarativeBase):
        pass

    class Badge(Base):
        __tablename__ = "badges"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        shop: Mapped[str] = mapped_column(SHOP)
        badge: Mapped[str | None] = mapped_column(code())

    return Base, Badge


def end(world: World, base: type[DeclarativeBase], engine: Engine | None = None) -> int:
    """Rebuild, which has to be complete, and destroy the former key; how many rows were rewritten."""
    done = rebuild(base, engine or world.engine, "acme")
    assert done.is_complete
    assert world.vault.drop_index("acme")
    return done.rewritten


def test_tables_and_bases_without_a_say_are_rebuilt(
    engine: Engine, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """A table that no model has, a second base on the metadata, and another metadata of the same base."""
    base, _ = shop_model()
    side = Table("side", base.metadata, Column("id", Integer, primary_key=True), Column("code", code()))

    class Second(DeclarativeBase):
        metadata = base.metadata

    class Own(Second):
        __tablename__ = "own"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))
        code: Mapped[str] = mapped_column(code())

    class Apart(base):  # type: ignore[valid-type, misc]
        __abstract__ = True
        metadata = MetaData()

    class Far(Apart):
        __tablename__ = "far"
        id: Mapped[int] = mapped_column(primary_key=True)
        code: Mapped[str] = mapped_column(code())

    world = world_of(base, engine, make_vault())
    for other in (Second, Apart):
        protect(other, world.vault)
        other.metadata.create_all(engine)
    with world.vault.scope(tenant="acme"):
        world.execute(insert(side), [{"id": 1, "code": "S"}])
        world.execute(insert(Far), [{"id": 1, "code": "F"}])
        world.save(Own(id=1, shop="acme", code="O"))
        rotate(world)
        assert end(world, base) == 3
        assert world.read(select(Own.shop, Own.code)) == [("acme", "O")]
        assert world.read(select(Far.code)) == [("F",)]
        assert world.read(select(side.c.code).where(side.c.code == "S")) == [("S",)]


def test_a_model_of_two_tables_is_rebuilt(
    engine: Engine, make_vault: MakeVault, rotate: Callable[[World], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped to a join: a column beside the tenant's, and one in the other table, which not every row has."""
    monkeypatch.setattr(rebuilding, "_PAGE", 1)

    class Base(DeclarativeBase):
        pass

    one = Table(
        "one",
        Base.metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("shop", String(20)),
        Column("code", code()),
    )
    other = Table(
        "other", Base.metadata, Column("id", ForeignKey("one.id"), primary_key=True), Column("far", code())
    )

    class Both(Base):
        __table__ = one.outerjoin(other)
        __vault__ = KeyScope(tenant="shop")
        id = column_property(one.c.id, other.c.id)

    world = world_of(Base, engine, make_vault())
    with world.vault.scope(tenant="acme"):
        world.execute(insert(one), [{"id": each, "shop": "acme", "code": f"C{each}"} for each in (1, 2, 3)])
        world.execute(insert(other), [{"id": 2, "far": "F"}, {"id": 3, "far": "G"}])
        rotate(world)
        assert end(world, Base) == 5
        rows = world.read(
            select(one.c.id, one.c.shop, one.c.code, other.c.far)
            .outerjoin_from(one, other)
            .order_by(one.c.id)
        )
    assert rows == [(1, "acme", "C1", None), (2, "acme", "C2", "F"), (3, "acme", "C3", "G")]


def test_a_tenant_out_of_reach_is_refused(
    sqlite_url: str, make_vault: MakeVault, rotate: Callable[[World], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the table's name, and before anything is written."""

    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))

    class Child(Parent):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(ForeignKey("parents.id"), primary_key=True)
        code: Mapped[str] = mapped_column(code())

    world = world_of(Base, create_engine(sqlite_url), make_vault())
    world.save(Child(id=1, shop="acme", code="C"))
    rotate(world)
    with monkeypatch.context() as patched:
        patched.setattr(rebuilding, "_mappers", lambda _: iter(()))
        with pytest.raises(errors.ConfigurationError, match=r"the rows of children .* in parents\.shop"):
            rebuild(Base, world.engine, "acme")
    assert end(world, Base) == 1
    world.engine.dispose()


def test_a_table_without_a_primary_key_is_refused(
    sqlite_url: str, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """Its pages would never end."""

    class Base(DeclarativeBase):
        pass

    loose = Table("loose", Base.metadata, Column("id", Integer), Column("code", code()))
    world = world_of(Base, create_engine(sqlite_url), make_vault())
    with world.vault.scope(tenant="acme"):
        world.execute(insert(loose), [{"id": 1, "code": "L"}])
    rotate(world)
    with pytest.raises(errors.ConfigurationError, match="the table loose has no primary key"):
        rebuild(Base, world.engine, "acme")
    world.engine.dispose()


def test_rows_of_others_are_told_by_their_keys(
    engine: Engine,
    make_vault: MakeVault,
    rotate: Callable[[World], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no column says whose a row is; a shredded tenant's, too, and pages that have none of ours."""
    monkeypatch.setattr(rebuilding, "_PAGE", 2)

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        code: Mapped[str | None] = mapped_column(code())
        mail: Mapped[str | None] = mapped_column(Encrypted(String(40), storage="text"))
        mail_index: Mapped[bytes | None] = mapped_column(BlindIndex("mail", normalize="email"))

    world = world_of(Base, engine, make_vault())
    owners = ["globex", "globex", "gone", "acme", "globex", "acme", "gone"]
    for number, owner in enumerate(owners):
        with world.vault.scope(tenant=owner):
            world.save(Note(id=number, code=owner, mail=f"{number}@example.com"))
    world.execute(insert(Note), [{"id": 7}])
    world.vault.shred("gone", actor="operator", reason="left")
    rotate(world)
    before = world.raw("SELECT * FROM notes WHERE id NOT IN (3, 5) ORDER BY id")
    done = rebuild(Base, engine, "acme")
    assert (done.rows, done.rewritten, done.cleared, done.is_complete) == (2, 2, 0, True)
    assert world.raw("SELECT * FROM notes WHERE id NOT IN (3, 5) ORDER BY id") == before
    world.vault.drop_index("acme")
    with world.vault.scope(tenant="acme"):
        assert world.read(select(Note.id).where(Note.mail == "5@example.com")) == [(5,)]
        assert world.read(select(Note.code).where(Note.id.in_([3, 5]))) == [("acme",), ("acme",)]


def test_what_is_no_ciphertext_is_told_all_the_same(
    sqlite_url: str, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """It is not passed over as another tenant's."""

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        mail: Mapped[str | None] = mapped_column(Encrypted(String(40), storage="text", deterministic=True))

    world = world_of(Base, create_engine(sqlite_url), make_vault())
    with world.vault.scope(tenant="acme"):
        world.save(Note(id=1, mail="a@example.com"))
    rotate(world)
    world.raw_execute("UPDATE notes SET mail = 'a@example.com'")
    with pytest.raises(errors.MalformedCiphertext):
        rebuild(Base, world.engine, "acme")
    world.engine.dispose()


def test_names_that_a_collation_takes_for_one_are_two_tenants(
    engine: Engine, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """MariaDB's collation does."""
    base, badge = shop_model()
    world = world_of(base, engine, make_vault())
    world.save(badge(id=1, shop="acme", badge="A"), badge(id=2, shop="ACME", badge="B"))
    rotate(world)
    assert end(world, base) == 1
    with world.vault.scope(tenant="ACME"):
        assert world.read(select(badge.badge).where(badge.id == 2, badge.shop == "ACME")) == [("B",)]


def test_a_translated_schema_is_rebuilt_and_no_other(
    engine: Engine, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """The engine says where its tables are; there may be others of the same names."""
    base, badge = shop_model()
    world = world_of(base, engine, make_vault())
    with _other_schema(engine) as apart:
        base.metadata.create_all(apart)
        with world.vault.scope(tenant="acme"):
            world.save(badge(id=1, shop="acme", badge="A"))
            with apart.begin() as connection:
                connection.execute(insert(badge), [{"id": 1, "shop": "acme", "badge": "B"}])
        before = world.raw("SELECT * FROM badges")
        rotate(world)
        assert end(world, base, apart) == 1
        assert world.raw("SELECT * FROM badges") == before
        with world.vault.scope(tenant="acme"), apart.connect() as connection:
            assert connection.execute(select(badge.shop, badge.badge)).all() == [("acme", "B")]


@contextmanager
def _other_schema(engine: Engine) -> Iterator[Engine]:
    """Have a second schema, and an engine that has its tables there."""
    on_sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        connection.exec_driver_sql("ATTACH ':memory:' AS apart" if on_sqlite else "CREATE SCHEMA apart")
    yield engine.execution_options(schema_translate_map={None: "apart"})
    if not on_sqlite:
        with engine.begin() as connection:
            cascade = " CASCADE" if engine.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP SCHEMA apart{cascade}")


def _insert(connection: Connection, badge: Any) -> None:
    connection.execute(insert(badge), [{"id": 9, "shop": "acme", "badge": "L"}])


def _update(connection: Connection, badge: Any) -> None:
    connection.execute(update(badge).where(badge.id == 1).values(badge="L"))


@contextmanager
def writing(world: World, write: Callable[[Connection, Any], None], badge: Any) -> Iterator[Connection]:
    """Have a transaction open that wrote under the former key; it is rolled back in the end."""
    with world.vault.scope(tenant="acme"), world.engine.connect() as connection:
        write(connection, badge)
        yield connection


@pytest.mark.parametrize("write", [_insert, _update])
def test_a_transaction_from_before_is_waited_for(
    engine: Engine,
    make_vault: MakeVault,
    settle: Callable[[World], None],
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Connection, Any], None],
) -> None:
    """What it wrote is not lost with the former key; while it goes on the result is not complete."""
    base, badge = shop_model()
    world = world_of(base, engine, make_vault())
    world.save(badge(id=1, shop="acme", badge="A"))
    world.vault.rotate_index("acme")
    monkeypatch.setattr(writers, "_LOCKED_FOR", 0)
    with writing(world, write, badge) as connection, ThreadPoolExecutor(1) as pool:
        settle(world)
        impatient = rebuild(base, engine, "acme", patience=0)
        assert (impatient.pending, impatient.is_complete) == (True, False)
        with blocked(monkeypatch) as waits:
            rebuilt: Future[Any] = pool.submit(partial(rebuild, base, engine, "acme"))
            assert waits.wait(10)
        connection.commit()
        done = rebuilt.result(30)
    assert done.is_complete
    world.vault.drop_index("acme")
    with world.vault.scope(tenant="acme"):
        found = world.read(select(badge.shop).where(badge.badge == "L"))
    assert found == [("acme",)]


@contextmanager
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """An event for when a rebuild has met a transaction that has not ended, and tries again."""
    met = Event()
    tried: dict[str, Any] = {
        name: getattr(writers, name) for name in ("_all_ended_up_to", "_nobody_holds", "_read_and_wait")
    }

    def note(name: str, *arguments: Any) -> Any:
        try:
            answer = tried[name](*arguments)
        except Exception:
            met.set()
            raise
        if answer is False:
            met.set()
        return answer

    with monkeypatch.context() as patched:
        for name in tried:
            patched.setattr(writers, name, partial(note, name))
        yield met


def test_nobody_is_held_up_by_one_that_is_waited_for(
    postgresql_url: str, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """Whoever only reads is not waited for, and whoever comes later writes at once."""
    base, badge = shop_model()
    engine = create_engine(postgresql_url)
    world = world_of(base, engine, make_vault())
    world.save(badge(id=1, shop="acme", badge="A"))
    rotate(world)
    with world.vault.scope(tenant="acme"), engine.connect() as reader:
        reader.execute(select(badge.id)).all()
        assert rebuild(base, engine, "acme", patience=0).is_complete
    with writing(world, _insert, badge):
        assert rebuild(base, engine, "acme", patience=0.1).pending
        world.save(badge(id=2, shop="acme", badge="B"))
    engine.dispose()


def test_connections_go_back_as_they_were(
    mariadb_url: str, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """The application may use the same pool."""
    base, badge = shop_model()
    engine = create_engine(mariadb_url, pool_size=1, max_overflow=0)
    settings = "SELECT @@innodb_lock_wait_timeout, @@tx_isolation"
    world = world_of(base, engine, make_vault())
    world.save(badge(id=1, shop="acme", badge="A"))
    rotate(world)
    before = world.raw(settings)
    assert end(world, base) == 1
    assert world.raw(settings) == before
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_that_stay_locked_are_left(
    request: pytest.FixtureRequest,
    make_vault: MakeVault,
    rotate: Callable[[World], None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """By a writer that came meanwhile: that is told, and is no error of the database."""
    quick = {"sqlite": {"timeout": 0.01}, "postgresql": {"options": "-c lock_timeout=20ms"}}[kind]
    engine = create_engine(request.getfixturevalue(f"{kind}_url"), connect_args=quick)
    base, badge = shop_model()
    world = world_of(base, engine, make_vault())
    world.save(badge(id=1, shop="acme", badge="A"))
    rotate(world)
    monkeypatch.setattr(rebuilding, "writers_ended", lambda *_: True)
    with engine.connect() as writer:
        writer.exec_driver_sql("UPDATE badges SET shop = shop WHERE id = 1")
        done = rebuild(base, engine, "acme")
    assert (done.left, done.rewritten, done.conflicts, done.is_complete) == (1, 0, set(), False)
    assert end(world, base) == 1
    engine.dispose()


def test_a_suspended_former_key_is_told(
    sqlite_url: str, make_vault: MakeVault, rotate: Callable[[World], None]
) -> None:
    """Values under it cannot be read: it has to be reinstated first."""
    base, badge = shop_model()
    world = world_of(base, create_engine(sqlite_url), make_vault())
    world.save(badge(id=1, shop="acme", badge="A"))
    rotate(world)
    (former,) = world.vault.index_rotation("acme").former
    change(world.vault.ring, former.key_id, KeyState.RETIRED, KeyState.SUSPENDED)
    with pytest.raises(errors.KeySuspended):
        rebuild(base, world.engine, "acme")
    world.vault.reinstate(former.key_id)
    assert end(world, base) == 1
    world.engine.dispose()
