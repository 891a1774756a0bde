"""Doors of UPDATE and DELETE, by Core and by the ORM."""

from typing import Any

import pytest
from sqlalchemy import bindparam, delete, func, update
from sqlalchemy.orm import Session

from fieldvault.errors import ScopeRequired
from tests.sqlalchemy.doors.place import Owned, Place, plain
from tests.sqlalchemy.shop import ORDERS, Order

LI, ADA, OLD = plain("li"), plain("ada"), plain("old")

KEPT: dict[str, Owned | None] = {"address": ("nordwind", None, ADA)}


@pytest.fixture
def orders(place: Place) -> None:
    """An order of each of two tenants."""
    place.run(
        lambda: place.save(Order(id=1, shop="acme", address=OLD), Order(id=2, shop="nordwind", address=ADA))
    )


@pytest.mark.usefixtures("orders")
@pytest.mark.door("Core update")
def test_core_update(place: Place, session: Session) -> None:
    """The scope says whose the value is; the other tenant's row stays."""
    with place.vault.scope(tenant="acme"):
        session.connection().execute(update(ORDERS).where(ORDERS.c.id == 1).values(address=LI))
        session.commit()
    assert place.stored(ORDERS) == {1: {"address": ("acme", None, LI)}, 2: KEPT}
    assert session.get_one(Order, 1).address == LI


@pytest.mark.usefixtures("orders")
@pytest.mark.door("Core update of many")
def test_core_update_of_many(place: Place, session: Session) -> None:
    """Parameters of a name of their own, one row each."""
    place.save(Order(id=3, shop="acme", address=OLD))
    statement = update(ORDERS).where(ORDERS.c.id == bindparam("key")).values(address=bindparam("to"))
    with place.vault.scope(tenant="acme"):
        session.connection().execute(statement, [{"key": 1, "to": LI}, {"key": 3, "to": plain("three")}])
        session.commit()
    assert place.stored(ORDERS) == {
        1: {"address": ("acme", None, LI)},
        2: KEPT,
        3: {"address": ("acme", None, plain("three"))},
    }


def _orm_update(place: Place, session: Session, synchronize: str) -> None:
    order, other = session.get_one(Order, 1), session.get_one(Order, 2)
    statement = update(Order).where(Order.shop == "acme").values(address=LI)
    with place.vault.scope(tenant="acme"):
        session.execute(statement, execution_options={"synchronize_session": synchronize})
        assert order.address == LI
    assert other.address == ADA
    session.commit()
    assert place.stored(ORDERS) == {1: {"address": ("acme", None, LI)}, 2: KEPT}
    assert (order.address, session.is_modified(order)) == (LI, False)


@pytest.mark.usefixtures("orders")
@pytest.mark.door("ORM update, evaluate")
def test_orm_update_evaluate(place: Place, session: Session) -> None:
    """Loaded objects have the new value, plain."""
    _orm_update(place, session, "evaluate")


@pytest.mark.usefixtures("orders")
@pytest.mark.door("ORM update, fetch")
def test_orm_update_fetch(place: Place, session: Session) -> None:
    """Loaded objects have the new value, plain."""
    _orm_update(place, session, "fetch")


@pytest.mark.usefixtures("orders")
@pytest.mark.door("ORM update by primary key")
def test_orm_update_by_primary_key(place: Place, session: Session) -> None:
    """A dictionary that says whose its row is needs no scope, one that does not does."""
    session.execute(update(Order), [{"id": 1, "shop": "acme", "address": LI}])
    session.execute(update(Order), [{"id": 2, "shop": "nordwind", "address": plain("two")}])
    session.commit()
    assert place.stored(ORDERS) == {
        1: {"address": ("acme", None, LI)},
        2: {"address": ("nordwind", None, plain("two"))},
    }
    with place.vault.scope(tenant="acme"):
        session.execute(update(Order), [{"id": 1, "address": OLD}])
        session.commit()
    assert session.get_one(Order, 1).address == OLD


@pytest.mark.usefixtures("orders")
@pytest.mark.door("update without a scope")
def test_update_without_a_scope(place: Place, session: Session) -> None:
    """Nothing is written for nobody."""
    with place.refuses(r"vault\.scope\(tenant=…\)", ScopeRequired):
        session.execute(update(Order).values(address=LI))
    with place.refuses(r"vault\.scope\(tenant=…\)", ScopeRequired):
        session.connection().execute(update(ORDERS), {"address": LI})


@pytest.mark.usefixtures("orders")
@pytest.mark.door("update to an expression", "update to another column")
def test_update_to_an_expression(place: Place, session: Session, door: str) -> None:
    """The database would compute on ciphertext, or store plaintext."""
    values: dict[str, Any] = {
        "update to an expression": (func.upper(ADA), func.upper(Order.address)),
        "update to another column": (Order.shop, Order.address.expression),
    }
    for value in values[door]:
        with place.vault.scope(tenant="acme"), place.refuses("compute it in Python"):
            session.execute(update(Order).values(address=value))
        with place.vault.scope(tenant="acme"), place.refuses("compute it in Python"):
            session.connection().execute(update(ORDERS).values(address=value))


@pytest.mark.usefixtures("orders")
@pytest.mark.door("plain column to an encrypted one")
def test_plain_column_to_an_encrypted_one(place: Place, session: Session) -> None:
    """A ciphertext in a plain column says nothing to anybody."""
    for column in (Order.address, ORDERS.c.address):
        with place.vault.scope(tenant="acme"), place.refuses("address is encrypted"):
            session.execute(update(Order).values(customer_id=column))


@pytest.mark.usefixtures("orders")
@pytest.mark.door("update where encrypted", "delete where encrypted")
def test_criteria_on_an_encrypted_column(place: Place, session: Session, door: str) -> None:
    """No row would be met."""
    statement = update(Order).values(shop="x") if door.startswith("update") else delete(Order)
    with place.vault.scope(tenant="acme"), place.refuses("select the rows by other columns"):
        session.execute(statement.where(Order.address == OLD))
    with place.vault.scope(tenant="acme"), place.refuses("select the rows by other columns"):
        session.execute(statement.where(Order.address.like("%a%")))


@pytest.mark.usefixtures("orders")
@pytest.mark.door("update returning")
def test_update_returning(place: Place, session: Session) -> None:
    """What comes back is plain."""
    statement = update(Order).where(Order.id == 1).values(address=LI)
    with place.vault.scope(tenant="acme"):
        assert [tuple(row) for row in session.execute(statement.returning(Order.id, Order.address))] == [
            (1, LI)
        ]
        (order,) = session.scalars(statement.values(address=plain("again")).returning(Order))
        assert order.address == plain("again")
    session.commit()
    assert place.stored(ORDERS) == {1: {"address": ("acme", None, plain("again"))}, 2: KEPT}


@pytest.mark.usefixtures("orders")
@pytest.mark.door("Core delete")
def test_core_delete(place: Place, session: Session) -> None:
    """No key is needed."""
    session.connection().execute(delete(ORDERS).where(ORDERS.c.id == 1))
    session.commit()
    assert place.stored(ORDERS) == {2: KEPT}


@pytest.mark.usefixtures("orders")
@pytest.mark.door("ORM delete, evaluate", "ORM delete, fetch")
def test_orm_delete(place: Place, session: Session, door: str) -> None:
    """The object leaves the session too."""
    order = session.get_one(Order, 1)
    options = {"synchronize_session": door.removeprefix("ORM delete, ")}
    session.execute(delete(Order).where(Order.shop == "acme"), execution_options=options)
    assert order not in session
    session.commit()
    assert place.stored(ORDERS) == {2: KEPT}


@pytest.mark.usefixtures("orders")
@pytest.mark.door("delete returning")
def test_delete_returning(place: Place, session: Session) -> None:
    """The last look at a value."""
    statement = delete(ORDERS).where(ORDERS.c.id == 1)
    gone = session.connection().execute(statement.returning(ORDERS.c.shop, ORDERS.c.address))
    assert [tuple(row) for row in gone] == [("acme", OLD)]
    (order,) = session.scalars(delete(Order).where(Order.id == 2).returning(Order))
    assert order.address == ADA
    session.commit()
    assert place.stored(ORDERS) == {}
