"""A model that is searched: one index of one column, one of two columns together, one of a default."""

from datetime import date
from typing import Any

from sqlalchemy import Date, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from fieldvault import KeyScope
from fieldvault.sqlalchemy import BlindIndex, Encrypted
from tests.sqlalchemy.doors.place import Place, plain

LI, ADA, OLD, NOBODY = plain("li"), plain("ada"), plain("old"), plain("nobody")
BORN = date(1815, 12, 10)


class Base(DeclarativeBase):
    pass


class Reader(Base):
    """Each row has its shop's keys."""

    __tablename__ = "reader"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(Encrypted(String))
    name_index: Mapped[bytes | None] = mapped_column(BlindIndex("name", normalize="casefold"))
    born: Mapped[date | None] = mapped_column(Encrypted(Date))
    both_index: Mapped[bytes | None] = mapped_column(BlindIndex(("name", "born"), normalize="exact"))
    card: Mapped[str | None] = mapped_column(Encrypted(String), default=plain("card"))
    card_index: Mapped[bytes | None] = mapped_column(BlindIndex("card"))
    city: Mapped[str | None] = mapped_column(String(20))
    loans: Mapped[list["Loan"]] = relationship(back_populates="reader")


class Loan(Base):
    """What a reader has; a row of a table that knows nothing encrypted."""

    __tablename__ = "loan"
    id: Mapped[int] = mapped_column(primary_key=True)
    reader_id: Mapped[int] = mapped_column(ForeignKey("reader.id"))
    reader: Mapped[Reader] = relationship(back_populates="loans")


READERS: Any = Reader.__table__

TWO: list[dict[str, Any]] = [
    {"id": 1, "shop": "acme", "name": LI, "born": BORN},
    {"id": 2, "shop": "nordwind", "name": ADA, "born": BORN},
]


def found(place: Place, session: Session, *criteria: Any, tenant: str = "acme") -> list[int]:
    """Return the ids of the readers that a search finds in a tenant's scope."""
    statement = session.query(Reader.id).where(*criteria).order_by(Reader.id)
    with place.vault.scope(tenant=tenant):
        return [row.id for row in statement]
