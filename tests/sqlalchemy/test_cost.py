"""What a page costs in questions to the key store and calls of the KMS, whatever the number of its rows."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.orm import Session, joinedload, selectinload, subqueryload

from fieldvault import Vault
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import protect
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.shop import CUSTOMERS, SECRET, Base, Customer, Memo, Order
from tests.sqlalchemy.world import World

PEOPLE = 1000


@pytest.fixture
def crowd(world: World) -> World:
    """Return a shop with a thousand customers, each with keys of their own."""
    rows = [{"id": f"p{number:04}", "shop": "acme", "name": f"n{number}"} for number in range(PEOPLE)]
    world.execute(insert(CUSTOMERS), rows)
    return world


@pytest.fixture
def cold(crowd: World, root_keys: Any) -> World:
    """Return the same shop in a process that has no key yet."""
    kms = FaultyKMS(LocalKMS(root_keys))
    protect(Base, Vault(kms=kms, key_store=crowd.store))
    crowd.kms = kms
    return crowd


LOADS: Mapping[str, Callable[[Session], Any]] = {
    "entities": lambda session: session.scalars(select(Customer)).all(),
    "columns": lambda session: session.execute(select(Customer.id, Customer.shop, Customer.name)).all(),
    "Core": lambda session: session.connection().execute(select(CUSTOMERS)).all(),
}


@pytest.mark.parametrize("way", ["entities", "columns", "Core"])
def test_a_cold_page_of_a_thousand_subjects_costs_one_query_and_one_call(cold: World, way: str) -> None:
    """And a warm one nothing."""
    with cold.session() as session:
        with cold.costs() as spent:
            assert len(LOADS[way](session)) == PEOPLE
        assert spent == {"fetch": 1, "kms": 1}
        session.expire_all()
        with cold.costs() as spent:
            assert len(LOADS[way](session)) == PEOPLE
        assert spent == {"kms": 0}


def test_rows_fetched_one_by_one_cost_a_few_queries(cold: World) -> None:
    """They are fetched ahead in growing pages; the first alone is fetched alone."""
    with cold.engine.connect() as connection:
        with cold.costs() as spent:
            connection.execute(select(CUSTOMERS)).first()
        assert spent == {"fetch": 1, "kms": 1}
        with cold.costs() as spent:
            assert sum(1 for _ in connection.execute(select(CUSTOMERS))) == PEOPLE
        assert spent["fetch"] <= 5


def test_a_page_in_the_scope_s_care_costs_as_little(world: World, root_keys: Any) -> None:
    """Rows that leave their scope to the ambient one may be of many subjects too."""
    for number in range(50):
        with world.vault.scope(tenant="acme", subject=f"s{number}"):
            world.save(Memo(body=f"n{number}"))
    kms = FaultyKMS(LocalKMS(root_keys))
    vault = Vault(kms=kms, key_store=world.store)
    protect(Base, vault)
    world.kms = kms
    with vault.scope(tenant="acme"), world.session() as session, world.costs() as spent:
        assert len(session.scalars(select(Memo)).all()) == 50
    assert spent == {"fetch": 1, "kms": 1}


def test_a_page_of_many_tenants_costs_one_query_and_one_call(world: World, root_keys: Any) -> None:
    """The KMS is asked for all of them at once."""
    world.execute(
        insert(CUSTOMERS), [{"id": f"p{number}", "shop": f"t{number}", "name": "x"} for number in range(40)]
    )
    kms = FaultyKMS(LocalKMS(root_keys))
    protect(Base, Vault(kms=kms, key_store=world.store))
    world.kms = kms
    with world.session() as session, world.costs() as spent:
        assert len(session.scalars(select(Customer)).all()) == 40
    assert spent == {"fetch": 1, "kms": 1}


def test_a_page_of_two_tables_costs_one_query_and_one_call(world: World, root_keys: Any) -> None:
    """The keys of all that a row holds come together."""
    world.save(
        *(
            Customer(id=f"p{n}", shop="acme", name="x", orders=[Order(shop=f"t{n}", address="y")])
            for n in range(9)
        )
    )
    kms = FaultyKMS(LocalKMS(root_keys))
    protect(Base, Vault(kms=kms, key_store=world.store))
    world.kms = kms
    with world.session() as session, world.costs() as spent:
        assert len(session.execute(select(Customer, Order).join(Customer.orders)).all()) == 9
    assert spent == {"fetch": 1, "kms": 1}


@pytest.mark.parametrize("way", ["entities", "Core"])
@pytest.mark.parametrize("subject", [True, False], ids=["subjects", "tenant"])
def test_a_page_of_shredded_rows_costs_no_query_a_row(cold: World, way: str, subject: bool) -> None:
    """That a key is destroyed is final, so it is asked once."""
    vault = Vault(kms=cold.kms, key_store=cold.store)
    for number in range(0, PEOPLE, 10) if subject else ():
        vault.shred("acme", f"p{number:04}", actor="test", reason="asked")
    if not subject:
        vault.shred("acme", actor="test", reason="asked")
    with cold.session() as session:
        with cold.costs() as spent:
            rows = LOADS[way](session)
        assert sum(row.name is None for row in rows) == (PEOPLE // 10 if subject else PEOPLE)
        assert spent["fetch"] == 1
        session.expire_all()
        with cold.costs() as spent:
            LOADS[way](session)
        assert spent == {"kms": 0}


def test_a_flush_of_many_rows_of_one_tenant_asks_no_more_than_one(world: World) -> None:
    """The key is made once; after that sealing asks nobody."""
    world.save(Order(shop="acme", address="first"))
    with world.session() as session, world.costs() as spent:
        session.add_all(Order(shop="acme", address=SECRET) for _ in range(200))
        session.flush()
    assert spent == {"kms": 0}


def test_a_dirty_check_opens_nothing(crowd: World) -> None:
    """A thousand objects are looked through without a key."""
    with crowd.session() as session:
        customers = session.scalars(select(Customer)).all()
        crowd.vault.ring.cache.drop(None)
        with crowd.costs() as spent, crowd.statements() as seen:
            for customer in customers:
                customer.city = None
                customer.name = str(customer.name)
            session.flush()
        assert spent == {"kms": 0}
        assert seen == []


def cold_again(world: World, root_keys: Any) -> Vault:
    """Bind the shop to a vault that has no key yet."""
    kms = FaultyKMS(LocalKMS(root_keys))
    vault = Vault(kms=kms, key_store=world.store)
    protect(Base, vault)
    world.kms = kms
    return vault


RELATED: Mapping[str, Any] = {
    "selectinload": selectinload,
    "joinedload": joinedload,
    "subqueryload": subqueryload,
}


@pytest.mark.parametrize("way", RELATED)
def test_related_rows_cost_one_query_and_one_call_a_statement(world: World, root_keys: Any, way: str) -> None:
    """Of forty customers, whose orders are forty other tenants'."""
    world.save(
        *(
            Customer(id=f"p{n}", shop="acme", name="x", orders=[Order(shop=f"t{n}", address="y")])
            for n in range(40)
        )
    )
    cold_again(world, root_keys)
    with world.session() as session, world.statements() as sent, world.costs() as spent:
        found = session.scalars(select(Customer).options(RELATED[way](Customer.orders))).unique().all()
        assert [order.address for each in found for order in each.orders] == ["y"] * 40
    assert spent == {"fetch": len(sent), "kms": len(sent)}
    assert len(sent) <= 2


def test_pages_of_yield_per_cost_about_one_query_each(cold: World) -> None:
    """The driver's pages begin where it likes; the tenant's wrap key is unwrapped once."""
    with cold.session() as session, cold.costs() as spent:
        pages = session.scalars(select(Customer).execution_options(yield_per=250)).partitions()
        assert [len(page) for page in pages] == [250] * 4
    assert spent["kms"] == 1
    assert spent["fetch"] <= 5


def test_a_flush_has_its_keys_before_its_first_statement(world: World, root_keys: Any) -> None:
    """Of new objects and changed ones, of all tenants and subjects: after it nobody waits under a lock."""
    world.save(*(Customer(id=f"old{n}", shop=f"t{n}", name="x") for n in range(5)))
    cold_again(world, root_keys)
    with world.session() as session:
        for each in session.scalars(select(Customer)):
            each.name = "changed"
        session.add_all(Customer(id=f"new{n}", shop=f"u{n}", name="x") for n in range(5))
        session.add_all(Order(shop=f"v{n}", address="y") for n in range(5))
        asked: list[tuple[int, int]] = []

        def note(*_: Any) -> None:
            asked.append((sum(world.store.asked.values()), len(world.kms.calls)))

        event.listen(world.engine, "before_cursor_execute", note)
        session.flush()
        note()
        event.remove(world.engine, "before_cursor_execute", note)
    assert len(asked) > 2
    assert set(asked) == {asked[0]}
    assert asked[0][1] > 0
