"""The models. ``personal`` and ``lookup`` are all that they know of encryption."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import JSON, Date, ForeignKey, ForeignKeyConstraint, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from examples.shop.encryption import lookup, lookup_part, personal
from fieldvault import KeyScope
from fieldvault.search import normalize


class Base(DeclarativeBase):
    """Every model of the shop."""


def last_four(value: str) -> str | None:
    """The last four digits of a number, however it is written."""
    return (normalize.digits(value) or "")[-4:] or None


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Tenant(Base):
    """A shop on the platform."""

    __tablename__ = "tenants"
    __vault__ = KeyScope(tenant="id")

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    title: Mapped[str] = mapped_column(String(80))
    bank_account: Mapped[str | None] = mapped_column(personal(String(40)))


class Customer(Base):
    """A customer of one tenant. What is personal is empty once the customer was erased."""

    __tablename__ = "customers"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("tenant_id", "email_index", name="one_account_an_email_index"),
    )
    __vault__ = KeyScope(tenant="tenant_id", subject="id")

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    joined_at: Mapped[datetime] = mapped_column(default=_now)
    erased_at: Mapped[datetime | None]

    name: Mapped[str | None] = mapped_column(personal(String(80)))
    email: Mapped[str | None] = mapped_column(personal(String(254)))
    email_index: Mapped[Any] = mapped_column(lookup("email", "email"), nullable=True)
    phone: Mapped[str | None] = mapped_column(personal(String(40)))
    phone_index: Mapped[Any] = mapped_column(lookup("phone", normalize.phone(country="86")), nullable=True)
    phone_end: Mapped[Any] = mapped_column(lookup_part("phone", last_four, bits=8), nullable=True)
    birthday: Mapped[date | None] = mapped_column(personal(Date))
    identity_number: Mapped[str | None] = mapped_column(personal(String(18)))
    password_hash: Mapped[str | None] = mapped_column(personal(String(120)))

    addresses: Mapped[list[Address]] = relationship(back_populates="customer", order_by="Address.label")
    orders: Mapped[list[Order]] = relationship(back_populates="customer", order_by="Order.placed_at")


class Address(Base):
    """One of a customer's addresses, by its label: ``home``, ``work``."""

    __tablename__ = "addresses"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "customer_id"], ["customers.tenant_id", "customers.id"]),
        UniqueConstraint("customer_id", "label"),
    )
    __vault__ = KeyScope(tenant="tenant_id", subject="customer_id")

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    customer_id: Mapped[uuid.UUID]
    label: Mapped[str] = mapped_column(String(20))
    recipient: Mapped[str | None] = mapped_column(personal(String(80)))
    street: Mapped[str | None] = mapped_column(personal(String(200)))
    city: Mapped[str | None] = mapped_column(personal(String(80)))
    postcode: Mapped[str | None] = mapped_column(personal(String(12)))

    customer: Mapped[Customer] = relationship(back_populates="addresses")


class Order(Base):
    """An order. What was bought and paid is the shop's, and stays when the customer is erased."""

    __tablename__ = "orders"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "customer_id"], ["customers.tenant_id", "customers.id"]),
    )
    __vault__ = KeyScope(tenant="tenant_id", subject="customer_id")

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[str] = mapped_column(String(64))
    customer_id: Mapped[uuid.UUID]
    placed_at: Mapped[datetime] = mapped_column(default=_now)
    ship_to: Mapped[dict[str, str | None] | None] = mapped_column(personal(JSON(none_as_null=True)))
    note: Mapped[str | None] = mapped_column(personal(Text))

    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list[OrderLine]] = relationship(order_by="OrderLine.position")

    @property
    def total(self) -> int:
        """What the order costs, in cents."""
        return sum(line.quantity * line.price for line in self.lines)


class OrderLine(Base):
    """So many of one article at a price in cents."""

    __tablename__ = "order_lines"

    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str] = mapped_column(String(80))
    quantity: Mapped[int]
    price: Mapped[int]
