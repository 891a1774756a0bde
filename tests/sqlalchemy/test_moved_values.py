"""A ciphertext copied to where it was not written is refused, whatever way it is read."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import delete, insert, literal_column, select, text, union_all, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session, aliased, defer, joinedload, load_only, selectinload, subqueryload

from fieldvault import errors
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, ORDERS, OTHER_SECRET, SECRET, Customer, Order
from tests.sqlalchemy.world import World

REFUSALS = (errors.TenantMismatch, errors.DecryptionError)


@pytest.fixture
def shop(world: World) -> World:
    """Return a shop with two tenants, three customers, and an order of each."""
    for identity, tenant, name in (
        ("li", "acme", SECRET),
        ("wu", "acme", "wu"),
        ("ada", "nordwind", OTHER_SECRET),
    ):
        order = (
            Order(id=len(identity), shop=tenant, address=name)
            if identity != "wu"
            else Order(id=9, shop=tenant, address=name)
        )
        world.save(Customer(id=identity, shop=tenant, name=name, email=name, orders=[order]))
    return world


MOVES = {
    "tenant": "UPDATE customers SET name = (SELECT name FROM customers WHERE id = 'ada') WHERE id = 'li'",
    "subject": "UPDATE customers SET name = (SELECT name FROM customers WHERE id = 'wu') WHERE id = 'li'",
    "row's tenant": "UPDATE customers SET shop = 'nordwind' WHERE id = 'li'",
    "row's subject": "UPDATE customers SET id = 'lei' WHERE id = 'li'",
    "table": "UPDATE customers SET name = (SELECT address FROM orders WHERE id = 2) WHERE id = 'li'",
}

Read = Callable[[Session], Any]
BOSS = aliased(Customer)
CITIES = select(Customer).subquery()
READS: Mapping[str, Read] = {
    "entities": lambda session: session.scalars(select(Customer)).all(),
    "get": lambda session: [session.get(Customer, each) for each in ("li", "lei")],
    "query": lambda session: session.query(Customer).all(),
    "first": lambda session: session.scalars(
        select(Customer).order_by(Customer.name.is_(None), Customer.id.desc()).where(Customer.id.like("l%"))
    ).first(),
    "columns": lambda session: session.execute(select(Customer.id, Customer.shop, Customer.name)).all(),
    "labels": lambda session: session.execute(
        select(Customer.id.label("a"), Customer.name.label("b"), Customer.shop.label("c"))
    ).all(),
    "aliased": lambda session: session.scalars(select(BOSS)).all(),
    "aliased beside": lambda session: session.execute(
        select(Customer, BOSS).join(BOSS, BOSS.id == Customer.id)
    ).all(),
    "joined": lambda session: session.execute(select(Order, Customer).join(Order.customer)).all(),
    "joinedload": lambda session: (
        session.scalars(select(Order).options(joinedload(Order.customer))).unique().all()
    ),
    "selectinload": lambda session: session.scalars(
        select(Order).options(selectinload(Order.customer))
    ).all(),
    "subqueryload": lambda session: session.scalars(
        select(Order).options(subqueryload(Order.customer))
    ).all(),
    "lazy": lambda session: [order.customer for order in session.scalars(select(Order))],
    "yield_per": lambda session: list(session.scalars(select(Customer).execution_options(yield_per=1))),
    "stream": lambda session: list(
        session.execute(select(Customer).execution_options(stream_results=True)).partitions(2)
    ),
    "one by one": lambda session: list(iter(session.connection().execute(select(CUSTOMERS)).fetchone, None)),
    "in pages": lambda session: in_pages(session),  # noqa: PLW0108 - defined below
    "Core": lambda session: session.connection().execute(select(CUSTOMERS)).all(),
    "mappings": lambda session: session.connection().execute(select(CUSTOMERS)).mappings().all(),
    "Core alias": lambda session: session.connection().execute(select(CUSTOMERS.alias())).all(),
    "subquery": lambda session: session.execute(select(CITIES)).all(),
    "entity of a subquery": lambda session: session.scalars(select(aliased(Customer, CITIES))).all(),
    "cte": lambda session: session.execute(select(select(CUSTOMERS).cte())).all(),
    "nested": lambda session: session.execute(select(select(select(CUSTOMERS).subquery()).subquery())).all(),
    "text": lambda session: session.scalars(
        select(Customer).from_statement(text("SELECT * FROM customers ORDER BY id"))
    ).all(),
    "text in order": lambda session: session.execute(
        text("SELECT name, shop, id FROM customers").columns(
            CUSTOMERS.c.name, CUSTOMERS.c.shop, CUSTOMERS.c.id
        )
    ).all(),
    "text by name": lambda session: session.execute(
        text("SELECT name, shop, id FROM customers").columns(
            id=CUSTOMERS.c.id.type, name=CUSTOMERS.c.name.type
        )
    ).all(),
    "update returning": lambda session: session.execute(
        update(CUSTOMERS).values(city="x").returning(CUSTOMERS)
    ).all(),
    "ORM update returning": lambda session: session.scalars(
        update(Customer).values(city="x").returning(Customer)
    ).all(),
    "delete returning": lambda session: session.execute(
        delete(CUSTOMERS).returning(CUSTOMERS.c.id, CUSTOMERS.c.shop, CUSTOMERS.c.name)
    ).all(),
    "refresh": lambda session: refreshed(session),  # noqa: PLW0108 - defined below
}


def in_pages(session: Session) -> list[Any]:
    """Read one row, then pages of two, then what is left."""
    result = session.connection().execute(select(CUSTOMERS))
    return [result.fetchone(), *result.fetchmany(2), *result.fetchmany(2), *result.fetchall()]


def refreshed(session: Session) -> None:
    """Load objects without their names, and then refresh those alone."""
    for customer in session.scalars(select(Customer).options(defer(Customer.name))).all():
        session.refresh(customer, ["name"])


@pytest.mark.parametrize("way", READS)
def test_values_that_were_not_moved_are_read_every_way(shop: World, way: str) -> None:
    """Across two tenants and without a scope, except where a text hides whose the rows are."""
    with shop.session() as session:
        if way == "text by name":
            with pytest.raises(errors.ScopeRequired):
                READS[way](session)
        else:
            READS[way](session)


@pytest.mark.parametrize("way", [way for way in READS if way != "text by name"])
def test_a_moved_value_is_refused_every_way(shop: World, way: str) -> None:
    """Whether the value moved, or the row beneath it."""
    tables = {table: shop.raw(f"SELECT * FROM {table}") for table in ("customers", "orders")}
    for move in MOVES.values():
        shop.raw_execute(move)
        shop.raw_execute(
            "UPDATE orders SET customer_id = 'lei' WHERE EXISTS (SELECT 1 FROM customers WHERE id = 'lei')"
        )
        with shop.session() as session, pytest.raises(REFUSALS) as caught:
            READS[way](session)
        assert SECRET not in str(caught.value)
        for table, rows in tables.items():
            shop.raw_execute(f"DELETE FROM {table}")
            for row in rows:
                shop.raw_execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def test_a_value_of_another_column_is_refused(shop: World) -> None:
    """Row, tenant and subject are right, the column is not; even where only that is read."""
    shop.raw_execute(
        "UPDATE customers SET name = (SELECT name FROM customers WHERE id = 'wu') WHERE id = 'li'"
    )
    shop.raw_execute("UPDATE orders SET address = (SELECT name FROM customers WHERE id = 'wu') WHERE id = 9")
    with shop.vault.scope(tenant="acme"), pytest.raises(errors.DecryptionError):
        shop.read(select(ORDERS.c.address).where(ORDERS.c.id == 9))
    shop.raw_execute("UPDATE customers SET name = email WHERE id = 'wu'")
    with shop.session() as session, pytest.raises((errors.DecryptionError, errors.MalformedCiphertext)):
        session.get(Customer, "wu")


def test_one_tampered_bit_is_refused(shop: World) -> None:
    """Wherever it is."""
    ((blob,),) = shop.raw("SELECT name FROM customers WHERE id = 'li'")
    for place in (0, 1, 2, 3, 18, 19, 31, 40, len(blob) - 1):
        changed = blob[:place] + bytes((blob[place] ^ 0x40,)) + blob[place + 1 :]
        shop.raw_execute("UPDATE customers SET name = ? WHERE id = 'li'", (changed,))
        with shop.session() as session, pytest.raises((errors.DecryptionError, errors.MalformedCiphertext)):
            session.get(Customer, "li")


@pytest.mark.parametrize("move", ["tenant", "subject"])
def test_rows_that_a_bulk_insert_returns_are_checked(shop: World, move: str) -> None:
    """Also where an upsert met a row whose value had been moved there."""
    shop.raw_execute(MOVES[move])
    statement = sqlite.insert(CUSTOMERS)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"city": statement.excluded.city})
    rows = [{"id": "li", "shop": "acme", "name": "x"}, {"id": "new", "shop": "acme", "name": "y"}]
    with shop.session() as session, pytest.raises(REFUSALS):
        session.connection().execute(statement.returning(CUSTOMERS), rows)


def test_rows_that_a_bulk_insert_returns_are_read(shop: World) -> None:
    """In several batches, each checked, each as it was given."""
    rows = [{"id": f"n{number}", "shop": f"s{number % 3}", "name": f"name {number}"} for number in range(50)]
    statement = insert(CUSTOMERS).returning(
        CUSTOMERS.c.id, CUSTOMERS.c.shop, CUSTOMERS.c.name, sort_by_parameter_order=True
    )
    with shop.engine.begin() as connection:
        found = connection.execute(statement.execution_options(insertmanyvalues_page_size=7), rows).all()
    assert [tuple(row) for row in found] == [tuple(row.values()) for row in rows]


def test_rows_come_in_order_however_they_are_fetched(shop: World) -> None:
    """One by one, in pages and the rest, though some are fetched ahead."""
    rows = [{"id": f"x{number:02}", "shop": "acme", "name": f"n{number}"} for number in range(30)]
    shop.execute(insert(CUSTOMERS), rows)
    statement = select(CUSTOMERS.c.id, CUSTOMERS.c.shop, CUSTOMERS.c.name).order_by(CUSTOMERS.c.id)
    with shop.engine.connect() as connection:
        expected = connection.execute(statement).all()
        result = connection.execute(statement)
        found = [
            result.fetchone(),
            result.fetchone(),
            *result.fetchmany(3),
            *result.fetchmany(9),
            result.fetchone(),
        ]
        assert [*found, *result.fetchall()] == expected
        result = connection.execute(statement)
        found = [result.fetchone(), *result.fetchmany(), *result.fetchmany(50)]
        assert found == expected
        assert result.fetchmany(1) == []
        assert connection.execute(statement.where(CUSTOMERS.c.id == "nobody")).fetchone() is None


def test_a_load_without_the_tenant_s_column_wants_a_scope(shop: World) -> None:
    """Nothing else says whose the rows are; with it they are read."""
    statement = select(Customer).options(load_only(Customer.name)).where(Customer.shop == "acme")
    with shop.session() as session, pytest.raises(errors.ScopeRequired, match="select that too"):
        session.scalars(statement).all()
    with shop.vault.scope(tenant="acme"), shop.session() as session:
        assert {each.name for each in session.scalars(statement)} == {SECRET, "wu"}


def test_columns_of_another_table_do_not_say_whose_a_row_is(shop: World) -> None:
    """An order's shop beside a customer's name is not the customer's shop."""
    joined = select(Order.shop, Customer.name).join(Order.customer)
    inner = joined.subquery()
    for statement in (joined, select(inner)):
        with shop.session() as session, pytest.raises(errors.ScopeRequired):
            session.execute(statement).all()
    twice = select(BOSS.shop, Customer.name).join(BOSS, BOSS.id != Customer.id)
    with shop.session() as session, pytest.raises(errors.ScopeRequired):
        session.execute(twice).all()


def test_a_union_says_whose_its_rows_are_where_all_its_parts_do(shop: World) -> None:
    """Each part has tenant and value from one and the same table."""
    names = union_all(
        select(Customer.shop, Customer.name).where(Customer.id == "li"),
        select(Customer.shop, Customer.name).where(Customer.id == "wu"),
    )
    statements = (names, select(names.subquery()))
    for statement in statements:
        with shop.session() as session:
            assert sorted(tuple(row) for row in session.execute(statement)) == [
                ("acme", SECRET),
                ("acme", "wu"),
            ]
            with shop.vault.scope(tenant="nordwind"), pytest.raises(errors.TenantMismatch):
                session.execute(statement).all()
    shop.raw_execute("UPDATE customers SET shop = 'nordwind' WHERE id = 'wu'")
    for statement in statements:
        with shop.session() as session, pytest.raises(errors.TenantMismatch):
            session.execute(statement).all()


def test_a_union_with_a_part_from_elsewhere_does_not_say_it(shop: World) -> None:
    """A tenant of one table and a value of another need not belong together; the scope has to say it."""
    mixed = union_all(
        select(Customer.shop, Customer.name),
        select(BOSS.shop, Customer.name).join(BOSS, BOSS.id != Customer.id),
    )
    for statement in (mixed, select(mixed.subquery())):
        with shop.session() as session, pytest.raises(errors.ScopeRequired):
            session.execute(statement).all()


def test_a_text_by_name_is_read_under_a_scope(shop: World) -> None:
    """Columns that are found by name are checked as others are."""
    statement = text("SELECT 1 AS one, name FROM customers WHERE shop = 'acme'").columns(
        absent=CUSTOMERS.c.email.type, name=CUSTOMERS.c.name.type
    )
    with shop.vault.scope(tenant="acme"):
        assert sorted(row.name for row in shop.engine.connect().execute(statement)) == [SECRET, "wu"]
    with shop.vault.scope(tenant="nordwind"), pytest.raises(errors.TenantMismatch):
        shop.read(statement)


def test_raw_statements_give_ciphertexts(shop: World) -> None:
    """What has no types is not opened, and nothing stands in its way."""
    assert all(isinstance(row[0], bytes) for row in shop.raw("SELECT name FROM customers"))
    assert shop.read(select(literal_column("1"))) == [(1,)]
    assert shop.read(select(MEMOS)) == []
