"""Doors by which columns, and not objects, come out of a SELECT."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import (
    LargeBinary,
    String,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    text,
    true,
    type_coerce,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import Bundle, Session, aliased

from fieldvault.envelope import Envelope
from fieldvault.errors import ScopeRequired
from tests.sqlalchemy.doors.place import Place, plain
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, ORDERS, Customer, Memo, Order

LI, ADA = plain("li"), plain("ada")
PAIRS = [("acme", LI), ("nordwind", ADA)]


@pytest.fixture(autouse=True)
def rows(place: Place) -> None:
    """A person and an order of each of two tenants, and two memos of one."""

    def save() -> None:
        place.save(
            Customer(id="li", shop="acme", name=LI, email=plain("mail")),
            Customer(id="ada", shop="nordwind", name=ADA),
            Order(id=1, shop="acme", customer_id="li", address=LI),
            Order(id=2, shop="nordwind", customer_id="ada", address=ADA),
        )
        with place.vault.scope(tenant="acme"):
            place.save(Memo(id=1, body=LI), Memo(id=2, body=None))
        assert place.stored(Order) == {
            1: {"address": ("acme", None, LI)},
            2: {"address": ("nordwind", None, ADA)},
        }

    place.run(save)


def tuples(session: Session, statement: Any) -> list[Any]:
    """Return the rows of a statement."""
    return [tuple(row) for row in session.execute(statement)]


ORDERED = select(Order.shop, Order.address).order_by(Order.id)


@pytest.mark.door("column")
def test_column(session: Session) -> None:
    """By the ORM and by Core, with the column that says whose it is."""
    assert tuples(session, ORDERED) == PAIRS
    core = select(ORDERS.c.shop, ORDERS.c.address).order_by(ORDERS.c.id)
    assert [tuple(row) for row in session.connection().execute(core)] == PAIRS


@pytest.mark.door("column alone")
def test_column_alone(place: Place, session: Session) -> None:
    """The scope says whose it is; the key record knows the subject."""
    with place.vault.scope(tenant="acme"):
        assert session.scalars(select(Order.address).where(Order.id == 1)).all() == [LI]
        assert session.scalar(select(Customer.name).where(Customer.id == "li")) == LI
        assert session.scalars(select(Memo.body).order_by(Memo.id)).all() == [LI, None]


@pytest.mark.door("column without a scope")
def test_column_without_a_scope(place: Place, session: Session) -> None:
    """A value whose tenant nobody names is not given out."""
    before = place.everything()
    with pytest.raises(ScopeRequired, match=r"select that too, or work inside vault\.scope") as caught:
        session.scalars(select(Order.address)).all()
    assert place.everything() == before
    place.says = str(caught.value)


@pytest.mark.door("labels")
def test_labels(session: Session) -> None:
    """Other names, and bundles of columns."""
    labelled = select(Order.shop.label("a"), Order.address.label("b")).order_by(Order.id)
    assert [(row.a, row.b) for row in session.execute(labelled)] == PAIRS
    bundled: Any = select(Bundle("both", Order.shop, Order.address)).order_by(Order.id)
    assert [tuple(row.both) for row in session.execute(bundled)] == PAIRS


@pytest.mark.door("aliased")
def test_aliased(session: Session) -> None:
    """Two of one table, each under its own row's tenant."""
    one, two = aliased(Order), aliased(Order, name="two")
    statement = select(one.shop, one.address, two.shop, two.address).where(one.id < two.id)
    assert tuples(session, statement) == [(*PAIRS[0], *PAIRS[1])]
    ((first, second),) = session.execute(select(one, two).where(one.id < two.id))
    assert (first.address, second.address) == (LI, ADA)


@pytest.mark.door("subquery")
def test_subquery(session: Session) -> None:
    """Columns, and entities on top of them."""
    inner = select(Order.id, Order.shop, Order.address.label("where")).subquery()
    assert tuples(session, select(inner.c.shop, inner.c["where"]).order_by(inner.c.id)) == PAIRS
    entity = aliased(Order, select(Order).where(Order.id == 2).subquery())
    assert [order.address for order in session.scalars(select(entity))] == [ADA]


@pytest.mark.door("CTE")
def test_cte(session: Session) -> None:
    """A named subquery, once and twice."""
    inner = select(Order.id, Order.shop, Order.address).cte("inner_orders")
    other = inner.alias()
    assert tuples(session, select(inner.c.shop, inner.c.address).order_by(inner.c.id)) == PAIRS
    joined = select(inner.c.shop, inner.c.address, other.c.shop, other.c.address)
    assert tuples(session, joined.where(inner.c.id < other.c.id)) == [(*PAIRS[0], *PAIRS[1])]


@pytest.mark.door("recursive CTE")
def test_recursive_cte(session: Session) -> None:
    """The value travels along with its row."""
    start = select(Order.id, Order.shop, Order.address).where(Order.id == 1).cte("chain", recursive=True)
    chain = start.union_all(select(Order.id, Order.shop, Order.address).where(Order.id == start.c.id + 1))
    assert tuples(session, select(chain.c.shop, chain.c.address).order_by(chain.c.id)) == PAIRS


@pytest.mark.door("lateral")
def test_lateral(session: Session) -> None:
    """A subquery for each row."""
    inner = select(Order.shop, Order.address).where(Order.customer_id == Customer.id).lateral()
    statement = select(Customer.shop, Customer.id, Customer.name, inner.c.shop, inner.c.address).join(
        inner, true()
    )
    assert tuples(session, statement.where(Customer.id == "li")) == [("acme", "li", LI, "acme", LI)]


@pytest.mark.door("scalar subquery")
def test_scalar_subquery(place: Place, session: Session) -> None:
    """A value beside its row says nothing of whose it is: the scope does."""
    inner = select(Order.address).where(Order.customer_id == Customer.id).scalar_subquery()
    with place.vault.scope(tenant="acme"):
        statement = select(Customer.id, inner.label("where")).where(Customer.id == "li")
        assert tuples(session, statement) == [("li", LI)]


@pytest.mark.door("union_all")
def test_union_all(place: Place, session: Session) -> None:
    """Halves of one column."""
    halves = [select(Order.shop, Order.address).where(Order.id == number) for number in (1, 2)]
    with place.vault.scope(tenant="acme"):
        assert tuples(session, union_all(halves[0], halves[0])) == [PAIRS[0]] * 2
    assert sorted(tuples(session, union_all(*halves))) == PAIRS


@pytest.mark.door("union_all of two columns")
def test_union_all_of_two_columns(place: Place, session: Session) -> None:
    """A row does not say from which column its value is."""
    both = union_all(select(Order.shop, Order.address), select(Customer.shop, Customer.name))
    with place.refuses("encrypted.*(select|quer|statement)"):
        session.execute(both).all()


@pytest.mark.door("union of rows")
def test_union_of_rows(session: Session) -> None:
    """A row that is in both halves is one row: its bytes are the same."""
    rows = select(Order.id, Order.shop, Order.address)
    statement = union(rows, rows.where(Order.id == 1))
    assert sorted(tuples(session, statement)) == [(1, *PAIRS[0]), (2, *PAIRS[1])]


@pytest.mark.door("entities of a union")
def test_entities_of_a_union(session: Session) -> None:
    """Objects from a subquery that is a union."""
    halves = [select(Order).where(Order.id == number) for number in (1, 2)]
    entity = aliased(Order, union_all(*halves).subquery())
    assert {order.id: order.address for order in session.scalars(select(entity))} == {1: LI, 2: ADA}


@pytest.mark.door("distinct rows")
def test_distinct_rows(session: Session) -> None:
    """Rows that a join repeats are one, for their bytes are the same."""
    statement = select(Order).join(Customer, Customer.id != null()).distinct()
    assert {order.id: order.address for order in session.scalars(statement)} == {1: LI, 2: ADA}


@pytest.mark.door("text")
def test_text(session: Session) -> None:
    """Nothing says that the column is encrypted, so its bytes come back."""
    cell = session.scalar(text("SELECT address FROM orders WHERE id = 1"))
    assert Envelope.parse(bytes(cell)).serialize() == bytes(cell)
    assert LI.encode() not in bytes(cell)


@pytest.mark.door("type_coerce")
def test_type_coerce(session: Session) -> None:
    """The application asks for the bytes themselves."""
    cell = session.scalar(select(type_coerce(Order.address, LargeBinary)).where(Order.id == 1))
    assert isinstance(cell, bytes)
    assert Envelope.parse(cell).serialize() == cell


@pytest.mark.door("text with columns")
def test_text_with_columns(place: Place, session: Session) -> None:
    """The columns say what the text selects: their tenants too."""
    statement = text("SELECT shop, address FROM orders ORDER BY id").columns(ORDERS.c.shop, ORDERS.c.address)
    assert tuples(session, statement) == PAIRS
    with place.vault.scope(tenant="acme"):
        named = text("SELECT address FROM orders WHERE id = 1").columns(address=ORDERS.c.address.type)
        assert tuples(session, named) == [(LI,)]


@pytest.mark.door("text with a typed parameter")
def test_text_with_a_typed_parameter(place: Place, session: Session) -> None:
    """The parameter has the column's type, and the scope says whose it is."""
    insertion = text("INSERT INTO orders (id, shop, address) VALUES (3, 'acme', :address)")
    typed = insertion.bindparams(bindparam("address", type_=ORDERS.c.address.type))
    with place.refuses(r"vault\.scope\(tenant=…\)", ScopeRequired):
        session.execute(typed, {"address": plain("3")})
    with place.vault.scope(tenant="acme"):
        session.execute(typed, {"address": plain("3")})
        session.commit()
    assert place.stored(Order)[3]["address"] == ("acme", None, plain("3"))
    assert session.get_one(Order, 3).address == plain("3")
    place.says = None


@pytest.mark.door("literal_column")
def test_literal_column(place: Place, session: Session) -> None:
    """A piece of text with the column's type."""
    typed: Any = literal_column("address", type_=ORDERS.c.address.type)
    with place.vault.scope(tenant="acme"):
        assert tuples(session, select(typed).select_from(ORDERS).where(ORDERS.c.id == 1)) == [(LI,)]


@pytest.mark.door("typed parameter")
def test_typed_parameter(place: Place, session: Session) -> None:
    """A parameter that has the column's own type is sealed as its value is."""
    parameter = bindparam("to", type_=ORDERS.c.address.type)
    with place.vault.scope(tenant="acme"):
        session.execute(update(Order).where(Order.id == 1).values(address=parameter), {"to": plain("new")})
        session.execute(insert(Order).values(id=3, shop="acme", address=parameter), {"to": plain("3")})
        session.commit()
    stored = place.stored(Order)
    assert [stored[key]["address"] for key in (1, 3)] == [
        ("acme", None, plain("new")),
        ("acme", None, plain("3")),
    ]


@pytest.mark.door("parameter of another type")
@pytest.mark.parametrize("type_", [String, LargeBinary])
def test_parameter_of_another_type(place: Place, session: Session, type_: Any) -> None:
    """It would reach the database as it is."""
    parameter = bindparam("to", type_=type_)
    value = LI if type_ is String else LI.encode()
    statements: Mapping[str, Callable[[], Any]] = {
        "update": lambda: update(Order).values(address=parameter),
        "insert": lambda: insert(Order).values(id=3, shop="acme", address=parameter),
    }
    for make in statements.values():
        with place.vault.scope(tenant="acme"), place.refuses("without a type of its own"):
            session.execute(make(), {"to": value})


@pytest.mark.door("is_(None)")
def test_is_none(session: Session) -> None:
    """Whether there is a value can be asked without a key."""
    assert session.scalars(select(Memo.id).where(Memo.body.is_(None))).all() == [2]
    assert session.scalars(select(Memo.id).where(Memo.body.is_not(None))).all() == [1]
    assert tuples(session, select(CUSTOMERS.c.email.is_(None)).order_by(CUSTOMERS.c.id)) == [(1,), (0,)]


@pytest.mark.door("exists")
def test_exists(session: Session) -> None:
    """Criteria on other columns, and on whether there is a value."""
    found = select(Customer).where(exists().where(Order.customer_id == Customer.id, Order.id == 2))
    assert [each.name for each in session.scalars(found)] == [ADA]
    assert session.scalar(select(exists(select(Memo.body).where(Memo.body.is_(None)))))
    assert [each.name for each in session.scalars(select(Customer).where(Customer.orders.any(id=1)))] == [LI]


@pytest.mark.door("count")
def test_count(session: Session) -> None:
    """Rows, and values that are not NULL."""
    assert session.scalar(select(func.count()).select_from(Memo)) == 2
    assert session.scalar(select(func.count(MEMOS.c.body))) == 1
    assert session.query(Memo).count() == 2
