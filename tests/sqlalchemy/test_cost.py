"""What a page costs in questions to the key store and calls of the KMS, whatever the number of its rows."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import String, create_engine, event, insert, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    selectinload,
    subqueryload,
)

from fieldvault import KeyScope, Vault, errors
from fieldvault.keys.records import Purpose
from fieldvault.kms import LocalKMS
from fieldvault.sqlalchemy import BlindIndex, Encrypted, protect
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.conftest import MakeVault, world_of
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


class Till(DeclarativeBase):
    pass


class Sale(Till):
    """What is written takes a data key and an index key."""

    __tablename__ = "sales"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    email: Mapped[str | None] = mapped_column(Encrypted(String(80)))
    email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email"))
    code: Mapped[str | None] = mapped_column(Encrypted(String(20), deterministic=True))


class Coupon(Till):
    """What is written takes an index key."""

    __tablename__ = "coupons"
    __vault__ = KeyScope(tenant="shop")
    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[str] = mapped_column(String(20))
    code: Mapped[str | None] = mapped_column(Encrypted(String(20), deterministic=True))


SALES: Any = Sale.__table__
COUPONS: Any = Coupon.__table__


@pytest.fixture
def till(sqlite_url: str, make_vault: MakeVault) -> Iterator[World]:
    """Yield tables whose columns are searched."""
    engine = create_engine(sqlite_url)
    yield world_of(Till, engine, make_vault())
    engine.dispose()


def _sale(tenant: int) -> dict[str, Any]:
    return {"shop": f"t{tenant}", "email": "a@example.com", "code": "A"}


TILL: Mapping[str, Callable[[World], None]] = {
    "flush": lambda till: till.save(*(Sale(**_sale(each)) for each in range(40))),
    "bulk": lambda till: till.execute(insert(SALES), [_sale(each) for each in range(40)]),
}


@pytest.mark.parametrize("way", TILL)
def test_index_keys_of_many_tenants_come_in_one_call(till: World, way: str) -> None:
    """After that of the data keys; the key store is asked for each tenant's retired ones."""
    TILL[way](till)
    till.vault.ring.cache.drop(None)
    with till.costs() as spent:
        TILL[way](till)
    assert spent == {"current": 2, "keys": 40, "kms": 2}
    with till.costs() as spent:
        TILL[way](till)
    assert spent == {"kms": 0}


def test_no_index_key_is_made_where_a_tenant_has_no_name(till: World) -> None:
    """What cannot be a tenant is refused before the key store hears of any of them."""
    with till.costs() as spent, pytest.raises(errors.ConfigurationError):
        till.execute(insert(COUPONS), [{"shop": shop, "code": "a"} for shop in ("t1", "t" * 300, "t2")])
    assert spent == {"kms": 0}


def test_what_is_deterministic_takes_no_data_key(till: World) -> None:
    """None is made, and none is unwrapped."""
    ways: list[Callable[[], None]] = [
        lambda: till.save(Coupon(shop="new", code="a")),
        lambda: till.execute(insert(COUPONS), [{"shop": "new", "code": code} for code in "bc"]),
    ]
    for number, way in enumerate(ways):
        till.vault.ring.cache.drop(None)
        with till.costs() as spent:
            way()
        assert spent["kms"] == 1, number
    assert [key.purpose for key in till.vault.keys("new")] == [Purpose.INDEX]


@pytest.mark.parametrize("scope", [{"tenant": "acme"}, {"tenant": "acme", "subject": "li"}, {}])
def test_a_flush_in_a_scope_has_its_keys_before_its_first_statement(
    world: World, root_keys: Any, scope: dict[str, str]
) -> None:
    """Of models that leave it to the scope, or to the vault's default, whose their rows are."""
    kms = FaultyKMS(LocalKMS(root_keys))
    vault = Vault(kms=kms, key_store=world.store, default_tenant="us")
    protect(Base, vault)
    with vault.scope(**scope), world.session() as session:
        session.add_all([Customer(id="li", shop=scope.get("tenant", "us")), Memo(body=SECRET)])
        seen: list[tuple[str, int]] = []
        event.listen(
            world.engine,
            "before_cursor_execute",
            lambda *args: seen.append((args[2].split()[2], len(kms.calls))),
        )
        session.flush()
    assert [table for table, _ in seen] == ["customers", "memos"]
    assert {calls for _, calls in seen} == {len(kms.calls)} != {0}


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
