"""Doors of each database's upsert."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from tests.sqlalchemy.doors.place import Place, plain
from tests.sqlalchemy.shop import ORDERS, Order

LI, ADA, OLD = plain("li"), plain("ada"), plain("old")

TWO = [{"id": 1, "shop": "acme", "address": LI}, {"id": 2, "shop": "nordwind", "address": ADA}]


def upsert(place: Place, target: Any = ORDERS, **options: Any) -> Any:
    """Return an insert of the place's dialect that changes the address of a row that is there."""
    if place.dialect == "mysql":
        mine = mysql.insert(target)
        return mine.on_duplicate_key_update(address=options.get("address", mine.inserted.address))
    other = sqlite.insert(target) if place.dialect == "sqlite" else postgresql.insert(target)
    return other.on_conflict_do_update(
        index_elements=["id"],
        set_={"address": options.get("address", other.excluded.address)},
    )


def addresses(place: Place) -> Sequence[Any]:
    """Return whose each address is and what it says, by id."""
    return [cells["address"] for _, cells in sorted(place.stored(ORDERS).items())]


@pytest.mark.door("upsert")
def test_upsert(place: Place, session: Session) -> None:
    """A row that is there takes the value that was to be inserted."""
    place.save(Order(id=1, shop="acme", address=OLD))
    for row in TWO:
        session.execute(upsert(place).values(**row))
    session.commit()
    assert addresses(place) == [("acme", None, LI), ("nordwind", None, ADA)]
    assert session.scalars(select(Order).order_by(Order.id)).all()[0].address == LI


@pytest.mark.door("upsert of many")
def test_upsert_of_many(place: Place, session: Session) -> None:
    """Each row under its own tenant, also in one statement."""
    place.save(Order(id=1, shop="acme", address=OLD))
    session.connection().execute(upsert(place), TWO)
    session.commit()
    assert addresses(place) == [("acme", None, LI), ("nordwind", None, ADA)]
    assert session.get_one(Order, 2).address == ADA


@pytest.mark.door("upsert returning")
def test_upsert_returning(place: Place, session: Session) -> None:
    """Entities, inserted and changed alike."""
    place.save(Order(id=1, shop="acme", address=OLD))
    loaded = session.get_one(Order, 1)
    statement = upsert(place, Order).returning(Order)
    made = session.scalars(statement, TWO, execution_options={"populate_existing": True}).all()
    assert {order.id: order.address for order in made} == {1: LI, 2: ADA}
    assert loaded.address == LI
    session.commit()
    assert addresses(place) == [("acme", None, LI), ("nordwind", None, ADA)]


@pytest.mark.door("upsert to a value")
def test_upsert_to_a_value(place: Place, session: Session) -> None:
    """It is not said for which row the value would be."""
    place.save(Order(id=1, shop="acme", address=OLD))
    with place.refuses(r"statement\.excluded \(statement\.inserted"):
        session.execute(upsert(place, address=ADA).values(**TWO[0]))


@pytest.mark.door("on_conflict_do_nothing")
def test_do_nothing(place: Place, session: Session) -> None:
    """The row that is there stays byte for byte."""
    place.save(Order(id=1, shop="acme", address=OLD))
    before = place.raw(ORDERS)
    dialect: Any = sqlite if place.dialect == "sqlite" else postgresql
    session.execute(dialect.insert(Order).on_conflict_do_nothing(index_elements=["id"]), TWO)
    session.commit()
    assert place.raw(ORDERS)[:1] == before
    assert addresses(place) == [("acme", None, OLD), ("nordwind", None, ADA)]


@pytest.mark.door("insert ignore")
@pytest.mark.filterwarnings("ignore:.*Duplicate entry")
def test_insert_ignore(place: Place, session: Session) -> None:
    """The row that is there stays byte for byte."""
    place.save(Order(id=1, shop="acme", address=OLD))
    before = place.raw(ORDERS)
    session.execute(insert(Order).prefix_with("IGNORE"), TWO)
    session.commit()
    assert place.raw(ORDERS)[:1] == before
    assert addresses(place) == [("acme", None, OLD), ("nordwind", None, ADA)]
