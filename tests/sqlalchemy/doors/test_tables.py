"""Doors of tables: reflected, renamed, mapped by other means."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry

from fieldvault import KeyScope
from fieldvault.sqlalchemy import BlindIndex, Encrypted, protect
from tests.sqlalchemy.doors import family
from tests.sqlalchemy.doors.family import Cart, acme, nordwind
from tests.sqlalchemy.doors.place import Place, plain

LI, ADA = plain("li"), plain("ada")


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The family."""
    return family.Base


@contextmanager
def made(place: Place, session: Session, table: Any) -> Iterator[None]:
    """Make a table for a test, and drop it whatever it is called then."""
    with place.engine.begin() as connection:
        table.create(connection)
    try:
        yield
    finally:
        # A transaction that is still open would hold the table.
        session.close()
        with place.engine.begin() as connection:
            for name in (table.name, "employees"):
                connection.execute(text(f"DROP TABLE IF EXISTS {name}"))


@pytest.mark.door("type_annotation_map")
def test_type_annotation_map(place: Place, session: Session) -> None:
    """The annotation alone encrypts; an instance shared by columns has each column's field."""

    class Own(DeclarativeBase):
        type_annotation_map = {family.Secret: Encrypted(String)}  # noqa: RUF012 - as SQLAlchemy has it

    class Thing(Own):
        __tablename__ = "thing"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))
        one: Mapped[family.Secret]
        two: Mapped[family.Secret | None]

    protect(Own, place.vault)
    with made(place, session, Thing.__table__):
        session.add(Thing(id=1, shop="acme", one=family.Secret(LI), two=None))
        session.commit()
        assert place.stored(Thing) == {1: {"one": acme(LI), "two": None}}
        assert session.get_one(Thing, 1).one == LI


@pytest.mark.door("imperative mapping")
def test_imperative_mapping(place: Place, session: Session) -> None:
    """A table, a class, and a mapping between them."""

    class Own(DeclarativeBase):
        registry = registry()

    class Thing:
        __vault__ = KeyScope(tenant="shop")

        def __init__(self, **values: Any) -> None:
            for name, value in values.items():
                setattr(self, name, value)

    things = Table(
        "thing",
        Own.metadata,
        Column("id", Integer, primary_key=True),
        Column("shop", String(20)),
        Column("name", Encrypted(String)),
    )
    Own.registry.map_imperatively(Thing, things)
    protect(Own, place.vault)
    with made(place, session, things):
        session.add_all([Thing(id=1, shop="acme", name=LI), Thing(id=2, shop="nordwind", name=ADA)])
        session.commit()
        assert place.stored(things) == {1: {"name": acme(LI)}, 2: {"name": nordwind(ADA)}}
        one: Any = session.get_one(Thing, 1)
        assert one.name == LI


@pytest.mark.door("renamed")
def test_renamed(place: Place, session: Session) -> None:
    """What was written under the old names is read, and written, under the new ones."""

    class Old(DeclarativeBase):
        pass

    class New(DeclarativeBase):
        pass

    class Staff(Old):
        __tablename__ = "staff"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))
        name: Mapped[str] = mapped_column(Encrypted(String))

    class Employee(New):
        __tablename__ = "employees"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))
        full_name: Mapped[str] = mapped_column(Encrypted(String, field="staff.name"))

    protect(Old, place.vault)
    protect(New, place.vault)
    with made(place, session, Staff.__table__):
        place.save(Staff(id=1, shop="acme", name=LI))
        with place.engine.begin() as connection:
            connection.execute(text("ALTER TABLE staff RENAME TO employees"))
            connection.execute(text("ALTER TABLE employees RENAME COLUMN name TO full_name"))
        assert session.get_one(Employee, 1).full_name == LI
        session.add(Employee(id=2, shop="nordwind", full_name=ADA))
        session.commit()
        assert place.stored(Employee) == {1: {"full_name": acme(LI)}, 2: {"full_name": nordwind(ADA)}}


@pytest.mark.door("reflection")
def test_reflection(place: Place, session: Session) -> None:
    """The database knows bytes; the override says what they are: ciphertexts, and the tokens of an index."""

    class Own(DeclarativeBase):
        pass

    place.save(Cart(id=1, shop="acme", note=LI), Cart(id=2, shop="nordwind", note=ADA))
    override: tuple[Column[Any], ...] = (
        Column("note", Encrypted(String)),
        Column("note_index", BlindIndex("note")),
    )
    reflected = Table("cart", Own.metadata, *override, autoload_with=place.engine)
    reflected_without = Table("cart", MetaData(), autoload_with=place.engine)
    protect(Own, place.vault)
    with place.vault.scope(tenant="acme"):
        connection = session.connection()
        connection.execute(insert(reflected), {"id": 3, "shop": "acme", "note": plain("3")})
        session.commit()
        statement = select(reflected.c.note).where(reflected.c.shop == "acme").order_by(reflected.c.id)
        assert session.scalars(statement).all() == [LI, plain("3")]
    assert place.stored(Cart)[3]["note"] == acme(plain("3"))
    assert LI.encode() not in session.scalars(select(reflected_without.c.note)).all()
    assert session.get_one(Cart, 3).note == plain("3")


@pytest.mark.door("automap")
def test_automap(place: Place, session: Session) -> None:
    """A class that names what is encrypted, the rest from the database."""
    own: Any = automap_base()

    class Basket(own):  # type: ignore[misc]
        __tablename__ = "cart"
        __vault__ = KeyScope(tenant="shop")
        shop = Column(String(20))
        note: Any = Column(Encrypted(String))
        note_index: Any = Column(BlindIndex("note"))

    own.prepare(autoload_with=place.engine)
    protect(own, place.vault)
    session.add_all([Basket(id=1, shop="acme", note=LI), Basket(id=2, shop="nordwind", note=ADA)])
    session.commit()
    assert [each.note for each in session.scalars(select(Basket).order_by(Basket.id))] == [LI, ADA]
    assert {key: cells["note"] for key, cells in place.stored(Cart).items()} == {
        1: acme(LI),
        2: nordwind(ADA),
    }
    session.close()
