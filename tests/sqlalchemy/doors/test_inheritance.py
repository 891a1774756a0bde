"""Doors of inheritance: one table, a table a class, tables joined."""

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import DeclarativeBase, Session, selectin_polymorphic, with_polymorphic

from fieldvault import errors
from tests.sqlalchemy.doors import family
from tests.sqlalchemy.doors.family import Ferry, Guest, Person, Ship, Worker, acme, nordwind
from tests.sqlalchemy.doors.place import Place, plain

LI, ADA = plain("li"), plain("ada")


@pytest.fixture(scope="module")
def base() -> type[DeclarativeBase]:
    """The family."""
    return family.Base


def save_people(place: Place) -> None:
    """A person of each kind, of two tenants."""
    place.save(
        Person(id=1, shop="acme", name=plain("1")),
        Worker(id=2, shop="nordwind", name=plain("2"), account=plain("account")),
        Guest(id=3, shop="acme", name=plain("3"), passport=plain("passport")),
    )


@pytest.mark.door("joined inheritance")
def test_joined_inheritance(place: Place, session: Session) -> None:
    """The tenant is in the root's table, also for the other's columns."""
    save_people(place)
    assert place.stored(Worker.__table__) == {2: {"account": nordwind(plain("account"))}}
    assert place.stored(Person)[2]["name"] == nordwind(plain("2"))
    (worker,) = session.scalars(select(Worker))
    assert (worker.name, worker.account) == (plain("2"), plain("account"))
    worker.account = plain("new")
    session.commit()
    assert place.stored(Worker.__table__) == {2: {"account": nordwind(plain("new"))}}
    assert (worker.account, session.get_one(Worker, 2).name) == (plain("new"), plain("2"))


@pytest.mark.door("joined inheritance in bulk")
def test_joined_inheritance_in_bulk(place: Place, session: Session) -> None:
    """A dictionary is a row in each of the tables, and says whose both are."""
    rows = [
        {"id": 1, "kind": "worker", "shop": "acme", "name": LI, "account": plain("1")},
        {"id": 2, "kind": "worker", "shop": "nordwind", "name": ADA, "account": plain("2")},
    ]
    session.execute(insert(Worker), rows)
    session.commit()
    assert place.stored(Person)[2]["name"] == nordwind(ADA)
    assert place.stored(Worker.__table__) == {
        1: {"account": acme(plain("1"))},
        2: {"account": nordwind(plain("2"))},
    }
    assert session.get_one(Worker, 2).account == plain("2")


@pytest.mark.door("index: joined inheritance")
def test_indexes_of_joined_inheritance(place: Place, session: Session) -> None:
    """A subclass is found by what stands in either table, among its own kind."""
    save_people(place)
    row = {"kind": "worker", "shop": "nordwind", "name": LI, "account": ADA}
    session.execute(insert(Worker), [{"id": 4, **row}])
    session.commit()
    assert place.stored(Person)[4]["name"] == nordwind(LI)
    assert place.stored(Worker.__table__)[4] == {"account": nordwind(ADA)}
    with place.vault.scope(tenant="nordwind"):
        for criterion in (Worker.name == LI, Worker.account == ADA, Person.name == LI):
            assert session.scalars(select(Worker).where(criterion)).one().id == 4
        assert session.scalars(select(Person).where(Person.name == plain("2"))).one().id == 2
    with place.vault.scope(tenant="acme"):
        assert session.scalars(select(Guest.id).where(Guest.passport == plain("passport"))).all() == [3]
        assert session.scalars(select(Worker.id).where(Worker.name == LI)).all() == []


@pytest.mark.door("single-table inheritance")
def test_single_table_inheritance(place: Place, session: Session) -> None:
    """A subclass's column is one of the root's table."""
    save_people(place)
    assert place.stored(Person)[3] == {"name": acme(plain("3")), "passport": acme(plain("passport"))}
    assert place.stored(Person)[1]["passport"] is None
    found = {type(each): each for each in session.scalars(select(Person))}
    guest = found[Guest]
    assert isinstance(guest, Guest)
    assert (guest.name, guest.passport) == (plain("3"), plain("passport"))


@pytest.mark.door("concrete inheritance")
def test_concrete_inheritance(place: Place, session: Session) -> None:
    """A table's fields are its own."""
    place.save(Ship(id=1, shop="acme", master=LI), Ferry(id=1, shop="nordwind", master=ADA, route=plain("r")))
    assert place.stored(Ship) == {1: {"master": acme(LI)}}
    assert place.stored(Ferry) == {1: {"master": nordwind(ADA), "route": nordwind(plain("r"))}}
    (ferry,) = session.scalars(select(Ferry))
    assert (ferry.master, ferry.route) == (ADA, plain("r"))


@pytest.mark.door("concrete polymorphic union")
def test_concrete_polymorphic_union(place: Place, session: Session) -> None:
    """One column of the union holds the fields of two tables."""
    place.save(Ship(id=1, shop="acme", master=LI), Ferry(id=2, shop="nordwind", master=ADA, route=plain("r")))
    with place.refuses("the same field"):
        session.scalars(select(Ship).order_by(Ship.id)).all()


@pytest.mark.door("selectin_polymorphic")
def test_selectin_polymorphic(place: Place, session: Session) -> None:
    """Subclass columns come by a statement of their own; all the rows are one tenant's."""
    save_people(place)
    loading = selectin_polymorphic(Person, [Worker, Guest])
    with place.vault.scope(tenant="acme"):
        mine = select(Person).where(Person.shop == "acme").options(loading).order_by(Person.id)
        found = {each.id: each for each in session.scalars(mine)}
        session.expunge_all()
    assert found[1].name == plain("1")
    assert {getattr(each, "passport", None) for each in found.values()} == {None, plain("passport")}


@pytest.mark.door("selectin_polymorphic without a scope")
def test_selectin_polymorphic_without_a_scope(place: Place, session: Session) -> None:
    """The second SELECT has nothing of the parent's table, where the tenant stands."""
    save_people(place)
    loading = selectin_polymorphic(Person, [Worker, Guest])
    with pytest.raises(errors.ScopeRequired, match="select that too, or work inside") as caught:
        session.scalars(select(Person).options(loading).order_by(Person.id)).all()
    place.says = str(caught.value)


@pytest.mark.door("with_polymorphic")
def test_with_polymorphic(place: Place, session: Session) -> None:
    """Subclass columns come by a join."""
    save_people(place)
    for flat in (False, True):
        everyone = with_polymorphic(Person, "*", flat=flat, aliased=flat)
        one, two, three = session.scalars(select(everyone).order_by(everyone.id)).all()
        session.expunge_all()
        assert isinstance(two, Worker)
        assert isinstance(three, Guest)
        assert (one.name, two.name, two.account) == (plain("1"), plain("2"), plain("account"))
        assert three.passport == plain("passport")
