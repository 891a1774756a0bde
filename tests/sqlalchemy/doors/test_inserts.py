"""Doors of INSERT: by Core and by the ORM, one row and many, with and without RETURNING."""

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from fieldvault.errors import ScopeRequired
from tests.sqlalchemy.doors.place import Owned, Place, plain
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, ORDERS, Customer, Order

LI, ADA = plain("li"), plain("ada")

TWO = [{"id": 1, "shop": "acme", "address": LI}, {"id": 2, "shop": "nordwind", "address": ADA}]
STORED: dict[int, dict[str, Owned | None]] = {
    1: {"address": ("acme", None, LI)},
    2: {"address": ("nordwind", None, ADA)},
}


@pytest.mark.door("Core insert")
def test_core_insert(place: Place, session: Session) -> None:
    """One row says whose it is."""
    for row in TWO:
        session.connection().execute(insert(ORDERS).values(**row))
    session.commit()
    assert place.stored(ORDERS) == STORED
    assert session.scalars(select(Order).order_by(Order.id)).all()[1].address == ADA


@pytest.mark.door("Core executemany")
def test_core_executemany(place: Place, session: Session) -> None:
    """Each row says whose it is."""
    session.connection().execute(insert(ORDERS), TWO)
    session.commit()
    assert place.stored(ORDERS) == STORED
    assert [order.address for order in session.scalars(select(Order).order_by(Order.id))] == [LI, ADA]


@pytest.mark.door("Core values list")
def test_values_list(place: Place, session: Session) -> None:
    """Rows of a model that leaves it to the scope."""
    with place.vault.scope(tenant="acme"):
        statement = insert(MEMOS).values([{"id": 1, "body": LI}, {"id": 2, "body": None}])
        session.connection().execute(statement)
        session.commit()
        rows = session.execute(select(MEMOS.c.body).order_by(MEMOS.c.id)).all()
        assert [tuple(row) for row in rows] == [(LI,), (None,)]
    assert place.stored(MEMOS) == {1: {"body": ("acme", None, LI)}, 2: {"body": None}}


@pytest.mark.door("Core values list of rows with scopes")
def test_values_list_of_rows_with_scopes(place: Place, session: Session) -> None:
    """The rows cannot be told apart, and a list of parameters can."""
    with place.refuses(r"pass the list to execute\(\)"):
        session.connection().execute(insert(ORDERS).values(TWO))
    with place.refuses(r"pass the list to execute\(\)"):
        session.execute(insert(Order).values(TWO))


@pytest.mark.door("Core returning")
def test_core_returning(place: Place, session: Session) -> None:
    """What comes back is plain, what is stored is not."""
    statement = insert(ORDERS).values(**TWO[0]).returning(ORDERS.c.id, ORDERS.c.shop, ORDERS.c.address)
    assert tuple(session.connection().execute(statement).one()) == (1, "acme", LI)
    session.commit()
    assert place.stored(ORDERS) == {1: STORED[1]}


@pytest.mark.door("insertmanyvalues")
def test_insertmanyvalues(place: Place, session: Session) -> None:
    """Many rows in few statements, each under its own keys; all come back plain."""
    rows = [
        {"id": number, "shop": ("acme", "nordwind")[number % 2], "address": plain(str(number))}
        for number in range(1, 9)
    ]
    core = insert(ORDERS).returning(ORDERS.c.id, ORDERS.c.shop, ORDERS.c.address)
    got = (
        session.connection(execution_options={"insertmanyvalues_page_size": 3}).execute(core, rows[:4]).all()
    )
    assert sorted(row.address for row in got) == [row["address"] for row in rows[:4]]
    orm = insert(Order).returning(Order.id, Order.shop, Order.address)
    more = session.execute(orm, rows[4:], execution_options={"insertmanyvalues_page_size": 3}).all()
    assert sorted(row.address for row in more) == [row["address"] for row in rows[4:]]
    session.commit()
    assert place.stored(ORDERS) == {
        row["id"]: {"address": (row["shop"], None, row["address"])} for row in rows
    }


@pytest.mark.door("ORM bulk insert")
def test_orm_bulk_insert(place: Place, session: Session) -> None:
    """Rows of several tenants and subjects, some without a value."""
    session.execute(
        insert(Customer),
        [
            {"id": "li", "shop": "acme", "name": LI, "profile": {"note": LI}},
            {"id": "ada", "shop": "nordwind", "name": ADA, "profile": None},
        ],
    )
    session.commit()
    stored = place.stored(Customer)
    assert [stored[key]["name"] for key in ("li", "ada")] == [("acme", "li", LI), ("nordwind", "ada", ADA)]
    assert stored["li"]["profile"] == ("acme", "li", {"note": LI})
    assert session.get_one(Customer, "ada").name == ADA


@pytest.mark.door("ORM insert of one row")
def test_orm_insert_of_one_row(place: Place, session: Session) -> None:
    """A primary key that Python makes is the subject."""
    session.execute(insert(Customer).values(shop="acme", name=LI))
    session.commit()
    ((key, cells),) = place.stored(Customer).items()
    assert cells["name"] == ("acme", key, LI)
    assert session.get_one(Customer, key).name == LI


@pytest.mark.door("ORM insert returning entities")
def test_orm_insert_returning_entities(place: Place, session: Session) -> None:
    """The objects are as if loaded: plain, and clean."""
    rows = [{"id": "li", "shop": "acme", "name": LI}, {"id": "ada", "shop": "nordwind", "name": ADA}]
    made = session.scalars(insert(Customer).returning(Customer), rows).all()
    assert {each.id: each.name for each in made} == {"li": LI, "ada": ADA}
    assert not session.dirty
    made[0].email = plain("email")
    session.commit()
    stored = place.stored(Customer)
    assert stored["li"]["name"] == ("acme", "li", LI)
    assert stored[made[0].id]["email"] == (made[0].shop, made[0].id, plain("email"))


@pytest.mark.door("insert in order")
def test_insert_in_order(place: Place, session: Session) -> None:
    """The values come back in the order of the dictionaries."""
    statement = insert(Order).returning(Order.shop, Order.address, sort_by_parameter_order=True)
    rows = [{"shop": row["shop"], "address": row["address"]} for row in reversed(TWO)]
    assert [row.address for row in session.execute(statement, rows)] == [ADA, LI]
    session.commit()
    cells = [row["address"] for row in place.stored(ORDERS).values()]
    assert sorted(cells, key=str) == [("acme", None, LI), ("nordwind", None, ADA)]


@pytest.mark.door("from_select")
def test_from_select(place: Place, session: Session) -> None:
    """A copied ciphertext would be another row's."""
    place.save(Order(**TWO[0]))
    columns = ORDERS.c.shop, ORDERS.c.address
    with place.refuses("select the rows and insert them"):
        session.connection().execute(insert(ORDERS).from_select(["shop", "address"], select(*columns)))
    with place.refuses("select the rows and insert them"):
        session.execute(insert(Order).from_select(["shop", "address"], select(Order.shop, CUSTOMERS.c.city)))


@pytest.mark.door("insert of an expression")
def test_insert_of_an_expression(place: Place, session: Session) -> None:
    """The database would see the value."""
    with place.refuses("compute it in Python"):
        session.execute(insert(Order).values(id=1, shop="acme", address=func.lower(LI)))
    with place.refuses("compute it in Python"):
        session.connection().execute(insert(ORDERS).values(id=1, shop="acme", address=func.lower(LI)))


@pytest.mark.door("insert without a scope")
def test_insert_without_a_scope(place: Place, session: Session) -> None:
    """No tenant, no row."""
    with place.refuses(r"vault\.scope\(tenant=…\)", ScopeRequired):
        session.connection().execute(insert(MEMOS), {"id": 1, "body": LI})
    with place.refuses("set it before the row is written", ScopeRequired):
        session.execute(insert(Order), [{"id": 1, "address": LI}])
