"""Accounts, with a column of each type that users of sqlalchemy-utils' encrypted types had trouble with."""

import enum
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Boolean, Date, DateTime, Enum, Integer, LargeBinary, Numeric, String, Time
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault import KeyScope
from fieldvault.sqlalchemy import BlindIndex, Encrypted
from tests.sqlalchemy.world import World


class Base(DeclarativeBase):
    pass


class Role(enum.Enum):
    OWNER = 1
    GUEST = 2


class Account(Base):
    """A column of each type that somebody had trouble with."""

    __tablename__ = "accounts"
    __vault__ = KeyScope(tenant="firm", subject="id")
    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    firm: Mapped[str] = mapped_column(String(20))
    email: Mapped[str | None] = mapped_column(Encrypted(String))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="email"), unique=True)
    password: Mapped[str | None] = mapped_column(Encrypted(String, storage="text"))
    settings: Mapped[dict[str, Any] | None] = mapped_column(Encrypted(JSON))
    credentials: Mapped[list[Any] | None] = mapped_column(Encrypted(JSONB))
    seen_at: Mapped[datetime | None] = mapped_column(Encrypted(DateTime(timezone=True)))
    opens_at: Mapped[time | None] = mapped_column(Encrypted(Time))
    born: Mapped[date | None] = mapped_column(Encrypted(Date))
    balance: Mapped[Decimal | None] = mapped_column(Encrypted(Numeric(12, 2)))
    photo: Mapped[bytes | None] = mapped_column(Encrypted(LargeBinary))
    is_active: Mapped[bool | None] = mapped_column(Encrypted(Boolean))
    logins: Mapped[int | None] = mapped_column(Encrypted(Integer))
    role: Mapped[Role | None] = mapped_column(Encrypted(Enum(Role)))


class Letter(Base):
    """Of its firm's keys alone, and little else: what threads contend for is the column."""

    __tablename__ = "letters"
    __vault__ = KeyScope(tenant="firm")
    id: Mapped[int] = mapped_column(primary_key=True)
    firm: Mapped[str] = mapped_column(String(20))
    body: Mapped[str] = mapped_column(Encrypted(String))


LETTERS: Any = Letter.__table__
ACCOUNTS = Base.metadata.tables["accounts"]


def loaded(world: World, id_: str) -> Account:
    """Return an account as a fresh session reads it."""
    with world.session() as session:
        return session.get_one(Account, id_)


def cell(world: World, column: str, id_: str) -> bytes:
    """Return a stored ciphertext."""
    return bytes(world.raw(f"SELECT {column} FROM accounts WHERE id = '{id_}'")[0][0])
