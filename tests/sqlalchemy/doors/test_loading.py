"""Doors by which objects and their relationships are loaded."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    Session,
    contains_eager,
    defer,
    immediateload,
    joinedload,
    load_only,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
)

from fieldvault.errors import ScopeRequired
from tests.sqlalchemy.doors.place import Place, plain
from tests.sqlalchemy.shop import ORDERS, Customer, Order

LI, ADA = plain("li"), plain("ada")
NAMES = {"li": LI, "ada": ADA}
ADDRESSES = {"li": [plain("1"), plain("2")], "ada": [plain("3")]}


@pytest.fixture(autouse=True)
def people(place: Place) -> None:
    """A person of each of two tenants, with orders."""

    def save() -> None:
        place.save(
            Customer(id="li", shop="acme", name=LI, email=LI),
            Customer(id="ada", shop="nordwind", name=ADA, email=ADA),
            Order(id=1, shop="acme", customer_id="li", address=plain("1")),
            Order(id=2, shop="acme", customer_id="li", address=plain("2")),
            Order(id=3, shop="nordwind", customer_id="ada", address=plain("3")),
        )
        assert place.stored(Customer)["li"]["name"] == ("acme", "li", LI)
        assert place.stored(Order)[3]["address"] == ("nordwind", None, plain("3"))

    place.run(save)


def addresses(customer: Customer) -> list[str | None]:
    """Return the addresses of a customer's orders."""
    return sorted((order.address for order in customer.orders), key=str)


@pytest.mark.door("session.get")
def test_get(session: Session) -> None:
    """From the database, then from the identity map."""
    li = session.get_one(Customer, "li")
    assert (li.name, session.get(Customer, "li") is li) == (LI, True)
    assert session.get_one(Order, 3).address == plain("3")


@pytest.mark.door("entities")
def test_entities(place: Place, session: Session) -> None:
    """Rows of several tenants in one result; inside a tenant's scope its own."""
    assert {each.id: each.name for each in session.scalars(select(Customer))} == NAMES
    pairs = session.execute(select(Customer, Order).join(Customer.orders).order_by(Order.id)).all()
    assert [(customer.name, order.address) for customer, order in pairs] == [
        (LI, plain("1")),
        (LI, plain("2")),
        (ADA, plain("3")),
    ]
    session.expunge_all()
    with place.vault.scope(tenant="acme"):
        (li,) = session.scalars(select(Customer).where(Customer.shop == "acme"))
        assert li.name == LI


@pytest.mark.door("Query")
def test_query(session: Session) -> None:
    """The interface of SQLAlchemy 1."""
    assert session.query(Customer).filter(Customer.id == "li").one().name == LI
    rows = session.query(Customer.shop, Customer.id, Customer.name).order_by(Customer.id).all()
    assert [row.name for row in rows] == [ADA, LI]


@pytest.mark.door("refresh")
def test_refresh(session: Session) -> None:
    """Whole, and by attribute."""
    li = session.get_one(Customer, "li")
    li.name = plain("x")
    with session.no_autoflush:
        session.refresh(li)
    assert li.name == LI
    li.email = plain("x")
    with session.no_autoflush:
        session.refresh(li, ["email"], with_for_update=True)
    assert li.email == LI


@pytest.mark.door("refresh an expired object")
def test_refresh_an_expired_object(session: Session) -> None:
    """One attribute, where nothing of the object is known but its primary key."""
    li = session.get_one(Customer, "li")
    session.commit()
    session.refresh(li, ["name"])
    assert vars(li)["name"] == LI


@pytest.mark.door("expire")
def test_expire(session: Session) -> None:
    """Whole, and by attribute."""
    li = session.get_one(Customer, "li")
    session.expire(li)
    assert li.name == LI
    session.expire(li, ["name"])
    assert (li.name, li.email) == (LI, LI)


@pytest.mark.door("defer")
def test_defer(session: Session) -> None:
    """The attribute is read on its own: the object says whose it is."""
    for each in session.scalars(select(Customer).options(defer(Customer.name))):
        assert "name" not in vars(each)
        assert each.name == NAMES[each.id]


@pytest.mark.door("undefer")
def test_undefer(session: Session) -> None:
    """A wildcard defers, some attributes are brought back."""
    statement = select(Customer).options(defer("*"), undefer(Customer.shop), undefer(Customer.email))
    for each in session.scalars(statement):
        assert "name" not in vars(each)
        assert vars(each)["email"] == NAMES[each.id]
        assert each.name == NAMES[each.id]


@pytest.mark.door("load_only")
def test_load_only(session: Session) -> None:
    """Of the encrypted columns one; the other later."""
    for each in session.scalars(select(Customer).options(load_only(Customer.shop, Customer.name))):
        assert "email" not in vars(each)
        assert (each.name, each.email) == (NAMES[each.id], NAMES[each.id])


@pytest.mark.door("load_only without the tenant")
def test_load_only_without_the_tenant(place: Place, session: Session) -> None:
    """Nothing says whose the value is, until the scope does."""
    statement = select(Customer).options(load_only(Customer.name)).where(Customer.shop == "acme")
    with pytest.raises(ScopeRequired, match=r"select that too, or work inside vault\.scope") as caught:
        session.scalars(statement).all()
    place.says = str(caught.value)
    with place.vault.scope(tenant="acme"):
        assert [each.name for each in session.scalars(statement)] == [LI]


@pytest.mark.door("raiseload")
def test_raiseload(session: Session) -> None:
    """What is not to be loaded is not; the rest is as ever."""
    options = defer(Customer.name, raiseload=True), raiseload(Customer.orders)
    for each in session.scalars(select(Customer).options(*options)):
        with pytest.raises(InvalidRequestError, match="raiseload"):
            _ = each.name
        with pytest.raises(InvalidRequestError, match="raise"):
            _ = each.orders
        assert each.email == NAMES[each.id]


@pytest.mark.door("lazy load")
def test_lazy_load(session: Session) -> None:
    """A collection, and its other end."""
    for each in session.scalars(select(Customer)).all():
        assert addresses(each) == ADDRESSES[each.id]
    session.expunge_all()
    owner = session.get_one(Order, 3).customer
    assert owner is not None
    assert owner.name == ADA


@pytest.mark.door("joinedload")
def test_joinedload(session: Session) -> None:
    """In one statement, and around a subquery."""
    statement = select(Customer).options(joinedload(Customer.orders)).order_by(Customer.id)
    found = session.scalars(statement).unique().all()
    session.expunge_all()
    assert [(each.name, addresses(each)) for each in found] == [
        (ADA, ADDRESSES["ada"]),
        (LI, ADDRESSES["li"]),
    ]
    (li,) = session.scalars(statement.offset(1).limit(1)).unique()
    session.expunge_all()
    assert (li.name, addresses(li)) == (LI, ADDRESSES["li"])
    order = session.scalars(select(Order).options(joinedload(Order.customer)).where(Order.id == 3)).one()
    assert order.customer is not None
    assert (order.address, order.customer.name) == (plain("3"), ADA)


@pytest.mark.door("selectinload", "subqueryload", "immediateload")
def test_eager_load(session: Session, door: str) -> None:
    """The related rows come by a statement of their own, all tenants' together."""
    load = {"selectinload": selectinload, "subqueryload": subqueryload, "immediateload": immediateload}[door]
    found = session.scalars(select(Customer).options(load(Customer.orders))).all()
    session.expunge_all()
    assert {each.id: (each.name, addresses(each)) for each in found} == {
        key: (NAMES[key], ADDRESSES[key]) for key in NAMES
    }
    orders = session.scalars(select(Order).options(load(Order.customer))).all()
    session.expunge_all()
    assert {order.id: order.customer.name for order in orders if order.customer} == {1: LI, 2: LI, 3: ADA}


@pytest.mark.door("contains_eager")
def test_contains_eager(session: Session) -> None:
    """The application's own join fills the collection."""
    statement = select(Customer).join(Customer.orders).options(contains_eager(Customer.orders))
    found = session.scalars(statement).unique().all()
    session.expunge_all()
    assert {each.id: (each.name, addresses(each)) for each in found} == {
        key: (NAMES[key], ADDRESSES[key]) for key in NAMES
    }


@pytest.mark.door("yield_per")
def test_yield_per(session: Session) -> None:
    """Pages of objects."""
    result = session.scalars(select(Order).order_by(Order.id).execution_options(yield_per=2))
    assert [order.address for order in result] == [plain("1"), plain("2"), plain("3")]


@pytest.mark.door("partitions")
def test_partitions(session: Session) -> None:
    """Pages of rows."""
    result = session.execute(select(Order.shop, Order.address).order_by(Order.id))
    assert [[row.address for row in page] for page in result.partitions(2)] == [
        [plain("1"), plain("2")],
        [plain("3")],
    ]


@pytest.mark.door("server-side cursor")
def test_server_side_cursor(session: Session) -> None:
    """Rows stay in the database until they are asked for."""
    options = {"stream_results": True, "max_row_buffer": 2}
    result = session.connection().execute(
        select(ORDERS.c.shop, ORDERS.c.address).order_by(ORDERS.c.id), execution_options=options
    )
    assert [result.fetchone() for _ in range(2)] == [("acme", plain("1")), ("acme", plain("2"))]
    assert [tuple(row) for row in result.fetchmany(5)] == [("nordwind", plain("3"))]


@pytest.mark.door("populate_existing")
def test_populate_existing(place: Place, session: Session) -> None:
    """What was written elsewhere replaces what was loaded."""
    li = session.get_one(Customer, "li")
    session.commit()
    assert li.name == LI
    session.rollback()
    with Session(place.engine) as other:
        other.get_one(Customer, "li").name = plain("new")
        other.commit()
    session.scalars(select(Customer), execution_options={"populate_existing": True}).all()
    assert li.name == plain("new")


@pytest.mark.door("from_statement")
def test_from_statement(session: Session) -> None:
    """Objects from the application's own text."""
    statement = select(Order).from_statement(text("SELECT * FROM orders ORDER BY id"))
    assert [order.address for order in session.scalars(statement)] == [plain("1"), plain("2"), plain("3")]
