"""Doors of values that nobody wrote into the row: Python's defaults, and what is left to the database."""

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fieldvault import KeyScope
from fieldvault.errors import ConfigurationError
from fieldvault.sqlalchemy import Encrypted
from tests.sqlalchemy.doors.place import Place, plain

SHOPS = {1: "acme", 2: "nordwind", 3: "acme", 4: "nordwind"}


def address_of(context: Any) -> str:
    """Return a value that depends on the row."""
    return plain(context.get_current_parameters()["shop"])


def a_call() -> str:
    """Return a value that does not."""
    return plain("a call")


class Base(DeclarativeBase):
    pass


class Parcel(Base):
    """Values that Python puts in by itself."""

    __tablename__ = "parcels"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    fixed: Mapped[str] = mapped_column(Encrypted(String), default=plain("a default"))
    called: Mapped[str] = mapped_column(Encrypted(String), default=a_call)
    sensitive: Mapped[str] = mapped_column(Encrypted(String), default=address_of)


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The models of this module."""
    return Base


def _write(session: Session) -> None:
    """Write rows of two tenants by flush, in bulk and by Core, and leave the values to Python."""
    session.add_all([Parcel(id=1, shop="acme"), Parcel(id=2, shop="nordwind")])
    session.flush()
    session.execute(insert(Parcel), [{"id": 3, "shop": "acme"}])
    session.connection().execute(insert(Parcel.__table__).values(id=4, shop="nordwind"))  # type: ignore[arg-type]
    session.commit()


@pytest.mark.door("scalar default")
def test_scalar_default(place: Place, session: Session) -> None:
    """A fixed value is sealed for each row anew."""
    _write(session)
    stored = place.stored(Parcel)
    assert {key: cells["fixed"] for key, cells in stored.items()} == {
        key: (shop, None, plain("a default")) for key, shop in SHOPS.items()
    }
    assert len({row["fixed"] for row in place.raw(Parcel.__table__)}) == 4  # type: ignore[arg-type]
    assert session.get_one(Parcel, 4).fixed == plain("a default")


@pytest.mark.door("callable default")
def test_callable_default(place: Place, session: Session) -> None:
    """The function is called before the row is sealed."""
    _write(session)
    assert {key: cells["called"] for key, cells in place.stored(Parcel).items()} == {
        key: (shop, None, plain("a call")) for key, shop in SHOPS.items()
    }
    assert session.get_one(Parcel, 3).called == plain("a call")


@pytest.mark.door("context-sensitive default")
def test_context_sensitive_default(place: Place, session: Session) -> None:
    """It reads the row as the application wrote it."""
    _write(session)
    assert {key: cells["sensitive"] for key, cells in place.stored(Parcel).items()} == {
        key: (shop, None, plain(shop)) for key, shop in SHOPS.items()
    }
    assert session.get_one(Parcel, 1).sensitive == plain("acme")


@pytest.mark.door("server default")
def test_server_default(place: Place) -> None:
    """The database would fill in plaintext."""
    for options in ({"server_default": plain("x")}, {"default": func.now()}):
        with place.refuses("give it a default in Python", ConfigurationError):
            Table(
                "things",
                MetaData(),
                Column("id", Integer, primary_key=True),
                Column("value", Encrypted(String), **options),
            )


@pytest.mark.door("onupdate")
def test_onupdate(place: Place) -> None:
    """An UPDATE does not say whose the row is."""
    with place.refuses("assign the value where the row is changed", ConfigurationError):
        Table(
            "things",
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("value", Encrypted(String), onupdate=a_call),
        )
