"""A shop's models: rows that say whose they are, and rows that leave it to the scope."""

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, Date, ForeignKey, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fieldvault import KeyScope
from fieldvault.sqlalchemy import Encrypted

SECRET = "Aleksandra Wiśniewska"
"""Found nowhere else: wherever it turns up, plaintext leaked."""

OTHER_SECRET = "王小明, 南京路 88"


def new_id() -> str:
    """Return an id that nobody has yet."""
    return uuid.uuid4().hex


class Base(DeclarativeBase):
    pass


class Customer(Base):
    """Each row is about one person, and has that person's keys."""

    __tablename__ = "customers"
    __vault__ = KeyScope(tenant="shop", subject="id")
    id: Mapped[str] = mapped_column(String(64), primary_key=True, default=new_id)
    shop: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    email: Mapped[str | None] = mapped_column(Encrypted(String(80), storage="text"))
    birthday: Mapped[date | None] = mapped_column(Encrypted(Date))
    profile: Mapped[dict[str, Any] | None] = mapped_column(Encrypted(JSON))
    seen_at: Mapped[datetime | None]
    city: Mapped[str | None] = mapped_column(String(80))
    orders: Mapped[list["Order"]] = relationship(back_populates="customer")


class Order(Base):
    """Each row has its shop's keys; ids come from the database."""

    __tablename__ = "orders"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(64))
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id"))
    address: Mapped[str | None] = mapped_column(Encrypted(Text))
    seen_at: Mapped[datetime | None]
    customer: Mapped[Customer | None] = relationship(back_populates="orders")


class Memo(Base):
    """Rows do not say whose they are: the scope does."""

    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str | None] = mapped_column(Encrypted(Text))
    seen_at: Mapped[datetime | None]


CUSTOMERS, ORDERS, MEMOS = Base.metadata.tables.values()
