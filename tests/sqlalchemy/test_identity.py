"""The row that a bound value belongs to: one text in Python and in the database, whoever asks for it."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    NCHAR,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Uuid,
    create_engine,
    select,
)
from sqlalchemy.dialects.postgresql import CHAR as POSTGRESQL_CHAR
from sqlalchemy.orm import DeclarativeBase, Mapped, defer, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import Encrypted, protect
from tests.sqlalchemy.conftest import MakeVault, world_of
from tests.sqlalchemy.world import World


class Map(DeclarativeBase):
    pass


class Field(Map):
    """The model has the parts of the key in another order than the table."""

    __tablename__ = "fields"
    __vault__ = KeyScope(tenant="farm")
    x: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    y: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    farm: Mapped[str] = mapped_column(String(20))
    crop: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))
    __mapper_args__: Any = {"primary_key": [y, x]}  # noqa: RUF012 - as SQLAlchemy has it


class Barn(Map):
    """The model is content with a part of the key."""

    __tablename__ = "barns"
    __vault__ = KeyScope(tenant="farm")
    x: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    y: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    farm: Mapped[str] = mapped_column(String(20))
    crop: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))
    __mapper_args__: Any = {"primary_key": [x]}  # noqa: RUF012 - as SQLAlchemy has it


class Animal(Map):
    __tablename__ = "animals"
    __vault__ = KeyScope(tenant="farm")
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - as SQLAlchemy has it
    herd: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    farm: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))


class Cow(Animal):
    """Joined, by a key whose parts have another order, and other names."""

    __tablename__ = "cows"
    __table_args__ = (
        ForeignKeyConstraint(["cow_herd", "cow"], ["animals.herd", "animals.number"], onupdate="NO ACTION"),
    )
    __mapper_args__: Any = {"polymorphic_identity": "cow"}  # noqa: RUF012 - as SQLAlchemy has it
    cow: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cow_herd: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    milk: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))


class Letter(Map):
    """A UUID as text."""

    __tablename__ = "letters"
    __vault__ = KeyScope(tenant="farm")
    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    farm: Mapped[str] = mapped_column(String(20))
    secret: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))


@pytest.fixture
def farm(database_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield a farm on each database in turn."""
    engine = create_engine(database_url)
    yield world_of(Map, engine, make_vault())
    engine.dispose()


MADE: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "other order": (lambda: Field(x=1, y=2, farm="acme", crop="rye"), ["crop"]),
    "a part of it": (lambda: Barn(x=1, y=2, farm="acme", crop="rye"), ["crop"]),
    "joined": (
        lambda: Cow(herd=1, number=2, cow_herd=1, cow=2, farm="acme", name="Ada", milk="much"),
        ["name", "milk"],
    ),
    "UUID": (lambda: Letter(id=str(uuid.UUID(int=0xABCDEF)).upper(), farm="acme", secret="s"), ["secret"]),
}


@pytest.mark.parametrize("model", MADE)
def test_what_is_loaded_later_is_the_row_s_own(farm: World, model: str) -> None:
    """Deferred, or refreshed by its name: the statement leaves out the key, which the object knows."""
    make, names = MADE[model]
    made = make()
    wanted = {name: getattr(made, name) for name in names}
    with farm.session() as session:
        session.add(made)
        session.flush()
        session.refresh(made, names)
        assert {name: getattr(made, name) for name in names} == wanted
        session.commit()
        assert {name: getattr(made, name) for name in names} == wanted
    if model == "UUID":
        # SQLAlchemy finds it by the text as it was written, and databases give it back in lower case.
        return
    with farm.session() as session:
        options = [defer(getattr(type(made), name)) for name in names]
        found = session.scalars(select(type(made)).options(*options)).one()
        assert {name: getattr(found, name) for name in names} == wanted
        session.refresh(found, names)
        assert {name: getattr(found, name) for name in names} == wanted


def test_a_joined_row_s_key_is_known_by_its_parent_s(farm: World) -> None:
    """Where the object has forgotten its own."""
    with farm.session() as session:
        cow = MADE["joined"][0]()
        session.add(cow)
        session.flush()
        session.expire(cow, ["cow", "cow_herd"])
        session.refresh(cow, ["milk"])
        assert cow.milk == "much"


def _bound_by(key: Callable[[], Any], make_vault: MakeVault) -> None:
    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Child(Base):
        __tablename__ = "children"
        id: Mapped[Any] = key()
        other: Mapped[int | None] = mapped_column(ForeignKey("parents.id", onupdate="CASCADE"))
        secret: Mapped[str | None] = mapped_column(Encrypted(String(40), bind_row=True))

    protect(Base, make_vault())


@pytest.mark.parametrize(
    "type_",
    [CHAR(10), NCHAR(10), POSTGRESQL_CHAR(10), String(10).with_variant(CHAR(10), "postgresql")],
    ids=["CHAR", "NCHAR", "PostgreSQL", "variant"],
)
def test_a_key_of_a_fixed_length_is_refused(type_: Any, make_vault: MakeVault) -> None:
    """PostgreSQL reads it back with spaces at its end."""
    with pytest.raises(errors.ConfigurationError, match=r"children\.secret .*, and id is .*spaces"):
        _bound_by(lambda: mapped_column(type_, primary_key=True), make_vault)


@pytest.mark.parametrize("onupdate", ["CASCADE", "cascade", "SET DEFAULT", "SET NULL"])
def test_a_key_that_follows_another_is_refused(onupdate: str, make_vault: MakeVault) -> None:
    """The database would change it behind the back of whoever sealed for it."""
    with pytest.raises(errors.ConfigurationError, match=f"foreign key of id is ON UPDATE {onupdate}: the"):
        _bound_by(
            lambda: mapped_column(ForeignKey("parents.id", onupdate=onupdate), primary_key=True), make_vault
        )


@pytest.mark.parametrize("onupdate", [None, "RESTRICT", "NO ACTION"])
def test_a_key_that_another_one_has_to_keep_is_no_problem(
    onupdate: str | None, make_vault: MakeVault
) -> None:
    """Nor is a foreign key that is not in the primary key."""
    _bound_by(
        lambda: mapped_column(Integer, ForeignKey("parents.id", onupdate=onupdate), primary_key=True),
        make_vault,
    )
