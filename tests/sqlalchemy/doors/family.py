"""Models for the doors of mappings: inheritance, mixins, dataclasses, properties of every kind."""

from dataclasses import dataclass
from typing import Annotated, Any

from sqlalchemy import JSON, ForeignKey, String, Table, select
from sqlalchemy import Column as CoreColumn
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    composite,
    declared_attr,
    mapped_column,
    query_expression,
    synonym,
    validates,
)

from fieldvault import KeyScope
from fieldvault.sqlalchemy import BlindIndex, Encrypted

Phone = Annotated[str, mapped_column(Encrypted(String))]
"""An annotation that several models share."""


class Secret(str):
    """Text that a base's annotation map encrypts."""

    __slots__ = ()


class Base(DeclarativeBase):
    pass


class WithScope:
    """What every model here has."""

    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))


class Person(WithScope, Base):
    """The root of joined inheritance."""

    __tablename__ = "person"
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(Encrypted(String))
    name_index: Mapped[bytes | None] = mapped_column(BlindIndex("name"))
    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012 - as SQLAlchemy has it


class Worker(Person):
    """A table of its own, joined; the tenant is in the other one."""

    __tablename__ = "worker"
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    account: Mapped[str | None] = mapped_column(Encrypted(String))
    account_index: Mapped[bytes | None] = mapped_column(BlindIndex("account"))
    __mapper_args__: Any = {"polymorphic_identity": "worker"}  # noqa: RUF012 - as SQLAlchemy has it


class Guest(Person):
    """In the table of the root."""

    passport: Mapped[str | None] = mapped_column(Encrypted(String))
    passport_index: Mapped[bytes | None] = mapped_column(BlindIndex("passport"))
    __mapper_args__: Any = {"polymorphic_identity": "guest"}  # noqa: RUF012 - as SQLAlchemy has it


class Ship(WithScope, ConcreteBase, Base):
    """The root of concrete inheritance."""

    __tablename__ = "ship"
    master: Mapped[str | None] = mapped_column(Encrypted(String))
    __mapper_args__: Any = {"polymorphic_identity": "ship", "concrete": True}  # noqa: RUF012 - as SQLAlchemy has it


class Ferry(Ship):
    """A table with all columns of its own."""

    __tablename__ = "ferry"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    master: Mapped[str | None] = mapped_column(Encrypted(String))
    route: Mapped[str | None] = mapped_column(Encrypted(String))
    route_index: Mapped[bytes | None] = mapped_column(BlindIndex("route"))
    __mapper_args__: Any = {"polymorphic_identity": "ferry", "concrete": True}  # noqa: RUF012 - as SQLAlchemy has it


class Noted:
    """A mixin with a plain column and one that is made for each class."""

    note: Mapped[str | None] = mapped_column(Encrypted(String))
    note_index: Mapped[bytes | None] = mapped_column(BlindIndex("note"))

    @declared_attr
    def remark(cls) -> Mapped[str | None]:  # noqa: N805 - a declared attribute takes the class
        """An encrypted column for each class."""
        return mapped_column(Encrypted(String))


class Cart(Noted, WithScope, Base):
    """A table with a mixin's columns."""

    __tablename__ = "cart"


class Wish(Noted, WithScope, Base):
    """Another with the same."""

    __tablename__ = "wish"


class Contact(WithScope, Base):
    """An abstract class: columns and scope, no table."""

    __abstract__ = True
    phone: Mapped[Phone]
    phone_index: Mapped[bytes | None] = mapped_column(BlindIndex("phone"))
    fax: Mapped[Phone]


class Supplier(AsyncAttrs, Contact):
    """A table with an abstract class's columns."""

    __tablename__ = "supplier"


class Courier(Contact):
    """Another with the same."""

    __tablename__ = "courier"


class Dated(MappedAsDataclass, Base):
    """A dataclass."""

    __tablename__ = "dated"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(Encrypted(String), repr=False)
    nick: Mapped[str | None] = mapped_column(Encrypted(String), default=None)
    name_index: Mapped[bytes | None] = mapped_column(
        BlindIndex("name"), init=False, repr=False, compare=False
    )


@dataclass(frozen=True)
class Address:
    """What two columns are together."""

    street: str | None
    town: str | None


class House(WithScope, Base):
    """Properties of every kind over encrypted columns."""

    __tablename__ = "house"
    street: Mapped[str | None] = mapped_column("street", Encrypted(String))
    town: Mapped[str | None] = mapped_column("town", Encrypted(String))
    address: Mapped[Address] = composite("street", "town")
    road: Mapped[str | None] = synonym("street")
    notes: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(Encrypted(JSON)))
    label: Mapped[str | None] = column_property(CoreColumn("label", Encrypted(String)))
    shown: Mapped[str | None] = query_expression()

    @hybrid_property
    def sign(self) -> str:
        """Street and a mark."""
        return self.street + "!"  # type: ignore[operator]

    @validates("label")
    def strip(self, _: str, value: str | None) -> str | None:
        """A label without blanks around it."""
        return None if value is None else value.strip()


class Harbour(WithScope, Base):
    """A value of another table among its own."""

    __tablename__ = "harbour"
    ship_id: Mapped[int | None]
    name: Mapped[str | None] = mapped_column(Encrypted(String))


Harbour.master = column_property(
    select(Ship.__table__.c.master).where(Ship.__table__.c.id == Harbour.ship_id).scalar_subquery()
)


class Keyed(Base):
    """Name, key and attribute all differ."""

    __table__ = Table(
        "keyed",
        Base.metadata,
        CoreColumn("ID_NO", String(20), key="id_key", primary_key=True),
        CoreColumn("SHOP_NO", String(20), key="shop_key"),
        CoreColumn("NAME_ENC", Encrypted(String), key="name_key"),
        CoreColumn("NAME_IDX", BlindIndex("name_key"), key="index_key"),
    )
    __vault__ = KeyScope(tenant="shop")
    id: Any = __table__.c.id_key
    shop: Any = __table__.c.shop_key
    name: Any = __table__.c.name_key


def acme(value: Any) -> Any:
    """Return a stored cell of the tenant."""
    return "acme", None, value


def nordwind(value: Any) -> Any:
    """Return a stored cell of the other tenant."""
    return "nordwind", None, value
