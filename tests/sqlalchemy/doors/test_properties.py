"""Doors of properties over encrypted columns: composites, synonyms, hybrids, expressions."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Session, column_property, with_expression

from tests.sqlalchemy.doors import family
from tests.sqlalchemy.doors.family import Address, Harbour, House, Ship, acme, nordwind
from tests.sqlalchemy.doors.place import Place, plain

LI, ADA = plain("li"), plain("ada")


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The family."""
    return family.Base


@pytest.mark.door("composite")
def test_composite(place: Place, session: Session) -> None:
    """Set, read, and replaced as one value."""
    place.save(House(id=1, shop="acme", address=Address(LI, None)))
    assert place.stored(House)[1]["street"] == acme(LI)
    house = session.get_one(House, 1)
    assert house.address == Address(LI, None)
    house.address = Address(LI, ADA)
    session.commit()
    assert place.stored(House)[1]["town"] == acme(ADA)
    assert house.address == Address(LI, ADA)
    assert session.execute(select(House.shop, House.address)).one() == ("acme", Address(LI, ADA))


@pytest.mark.door("composite in SQL", "synonym in SQL", "hybrid in SQL")
def test_properties_in_sql(place: Place, session: Session, door: str) -> None:
    """A property asks its columns, which do not answer."""
    place.save(House(id=1, shop="acme", address=Address(LI, ADA)))
    questions: dict[str, Any] = {
        "composite in SQL": lambda: select(House.id).where(House.address == Address(LI, ADA)),
        "synonym in SQL": lambda: select(House.id).where(House.road == LI),
        "hybrid in SQL": lambda: select(House.id, House.sign),
    }
    with place.vault.scope(tenant="acme"), place.refuses("street is encrypted.*in Python"):
        session.execute(questions[door]())


@pytest.mark.door("hybrid in Python")
def test_hybrid(place: Place, session: Session) -> None:
    """On an object it is Python."""
    place.save(House(id=1, shop="acme", street=LI))
    assert session.get_one(House, 1).sign == LI + "!"


@pytest.mark.door("synonym")
def test_synonym(place: Place, session: Session) -> None:
    """Another name for the same cell."""
    place.save(House(id=1, shop="acme", road=LI))
    assert place.stored(House)[1]["street"] == acme(LI)
    house = session.get_one(House, 1)
    house.road = ADA
    session.commit()
    assert (house.street, house.road) == (ADA, ADA)
    assert session.execute(select(House.shop, House.road)).one() == ("acme", ADA)


@pytest.mark.door("validates")
def test_validates(place: Place, session: Session) -> None:
    """The application's validator changes the value before it is sealed."""
    house = House(id=1, shop="acme", label=f"  {LI} ")
    session.add(house)
    session.commit()
    assert place.stored(House)[1]["label"] == acme(LI)
    house.label = f" {ADA}"
    session.commit()
    assert house.label == ADA


@pytest.mark.door("mutable JSON")
def test_mutable_json(place: Place, session: Session) -> None:
    """A change in place is seen, and sealed."""
    place.save(House(id=1, shop="acme", notes={"a": LI}), House(id=2, shop="nordwind", notes={}))
    house, other = session.get_one(House, 1), session.get_one(House, 2)
    assert house.notes is not None
    assert other.notes is not None
    assert not session.dirty
    house.notes["b"] = ADA
    other.notes.update(c=[plain("c")])
    session.commit()
    stored = place.stored(House)
    assert stored[1]["notes"] == acme({"a": LI, "b": ADA})
    assert stored[2]["notes"] == nordwind({"c": [plain("c")]})
    assert dict(house.notes) == {"a": LI, "b": ADA}


@pytest.mark.door("column_property")
def test_column_property(place: Place, session: Session) -> None:
    """An encrypted column beneath, written and read."""
    place.save(House(id=1, shop="acme", label=LI))
    assert place.stored(House)[1]["label"] == acme(LI)
    assert session.get_one(House, 1).label == LI


@pytest.mark.door("column_property of a subquery")
def test_column_property_of_a_subquery(place: Place, session: Session) -> None:
    """Another table's value, for which the scope speaks."""
    place.save(Ship(id=1, shop="acme", master=LI), Harbour(id=2, shop="acme", ship_id=1, name=ADA))
    assert place.stored(Harbour) == {2: {"name": acme(ADA)}}
    with place.vault.scope(tenant="acme"):
        harbour: Any = session.get_one(Harbour, 2)
        assert (harbour.name, harbour.master) == (ADA, LI)


@pytest.mark.door("column_property of an expression")
def test_column_property_of_an_expression(place: Place) -> None:
    """Refused as the class is defined."""
    with place.refuses("street is encrypted.*in Python"):
        column_property(House.__table__.c.street + House.__table__.c.town)


@pytest.mark.door("with_expression")
def test_with_expression(place: Place, session: Session) -> None:
    """Whatever the query puts there."""
    place.save(House(id=1, shop="acme", street=LI), House(id=2, shop="nordwind", street=ADA))
    statement = select(House).options(with_expression(House.shown, House.street)).order_by(House.id)
    assert [house.shown for house in session.scalars(statement)] == [LI, ADA]
