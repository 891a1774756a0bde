"""Doors of objects that leave a session, and of sessions in threads and tasks."""

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, insert, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, make_transient, scoped_session, sessionmaker

from fieldvault.errors import TenantMismatch
from tests.sqlalchemy.doors.place import Place, plain
from tests.sqlalchemy.shop import MEMOS, ORDERS, Customer, Memo, Order
from tests.sqlalchemy.world import carriers_in

LI, ADA = plain("li"), plain("ada")


@pytest.mark.door("pickle")
def test_pickle(place: Place, session: Session) -> None:
    """It takes its values along, and no vault; merged unchanged it writes nothing."""
    place.save(Customer(id="li", shop="acme", name=LI, email=LI))
    pickled = pickle.dumps(session.get_one(Customer, "li"))
    assert b"fieldvault" not in pickled
    session.rollback()
    again: Customer = pickle.loads(pickled)  # noqa: S301 - made three lines above
    assert (again.name, carriers_in(again)) == (LI, [])
    sent = len(place.sent)
    merged = session.merge(again)
    session.flush()
    assert [statement for statement, _ in place.sent[sent:] if statement.startswith("UPDATE")] == []
    merged.email = ADA
    session.commit()
    assert place.stored(Customer)["li"]["email"] == ("acme", "li", ADA)


@pytest.mark.door("deep copy")
def test_deep_copy(place: Place, session: Session) -> None:
    """A copy has values of its own, and goes in under its own scope."""
    place.save(Customer(id="li", shop="acme", name=LI, profile={"a": [LI]}))
    original = session.get_one(Customer, "li")
    copied = copy.deepcopy(original)
    assert (copied.name, copied.profile, carriers_in(copied)) == (LI, {"a": [LI]}, [])
    assert copied.profile is not original.profile
    make_transient(copied)
    copied.id, copied.shop = "lei", "nordwind"
    session.add(copied)
    session.commit()
    stored = place.stored(Customer)
    assert stored["lei"]["name"] == ("nordwind", "lei", LI)
    assert stored["lei"]["profile"] == ("nordwind", "lei", {"a": [LI]})
    assert stored["li"]["name"] == ("acme", "li", LI)


@pytest.mark.door("dictionary of an object")
def test_dictionary_of_an_object(place: Place, session: Session) -> None:
    """Before, between and after: what tools look at is what the application wrote."""
    place.save(Order(id=2, shop="nordwind", address=ADA))
    order = Order(id=1, shop="acme", address=LI)
    session.add(order)
    session.flush()
    assert vars(order)["address"] == LI
    loaded = session.get_one(Order, 2)
    assert inspect(loaded).dict["address"] == ADA
    assert inspect(loaded).attrs.address.history == ((), [ADA], ())
    loaded.address = LI
    assert inspect(loaded).attrs.address.history == ([LI], (), [ADA])
    session.commit()
    assert place.stored(Order)[2]["address"] == ("nordwind", None, LI)


@pytest.mark.door("scoped_session in threads")
def test_scoped_session(place: Place) -> None:
    """Every thread has its session and its scope; nobody reads the other tenant's."""
    scoped = scoped_session(sessionmaker(place.engine))
    # SQLite has one writer at a time.
    turn = threading.Lock()

    def work(number: int) -> None:
        tenant = ("acme", "nordwind")[number % 2]
        with place.vault.scope(tenant=tenant):
            with turn:
                scoped.add(Memo(id=number, body=plain(f"{number} of {tenant}")))
                scoped.commit()
            assert scoped.get_one(Memo, number).body == plain(f"{number} of {tenant}")
            scoped.remove()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 21)))
    tenants = {number: ("acme", "nordwind")[number % 2] for number in range(1, 21)}
    assert place.stored(Memo) == {
        number: {"body": (tenant, None, plain(f"{number} of {tenant}"))} for number, tenant in tenants.items()
    }
    with place.vault.scope(tenant="acme"), pytest.raises(TenantMismatch):
        scoped.get(Memo, 1)
    scoped.remove()


@pytest.mark.door("async_scoped_session in tasks")
async def test_async_scoped_session(place: Place) -> None:
    """Every task has its session and its scope."""
    scoped = async_scoped_session(async_sessionmaker(place.asynchronous), asyncio.current_task)
    turn = asyncio.Lock()

    async def work(number: int) -> None:
        tenant = ("acme", "nordwind")[number % 2]
        async with place.vault.scope(tenant=tenant):
            async with turn:
                scoped.add(Memo(id=number, body=plain(f"{number} of {tenant}")))
                await scoped.commit()
            assert (await scoped.get_one(Memo, number)).body == plain(f"{number} of {tenant}")
            await scoped.remove()

    await asyncio.gather(*(work(number) for number in range(1, 13)))
    async with AsyncSession(place.asynchronous) as session:
        stored = await session.run_sync(lambda _: place.stored(Memo))
    tenants = {number: ("acme", "nordwind")[number % 2] for number in range(1, 13)}
    assert stored == {
        number: {"body": (tenant, None, plain(f"{number} of {tenant}"))} for number, tenant in tenants.items()
    }


@pytest.mark.door("AsyncSession")
async def test_async_session(place: Place) -> None:
    """What a session does, awaited."""
    async with AsyncSession(place.asynchronous) as session:
        session.add_all([Order(id=1, shop="acme", address=LI), Order(id=2, shop="nordwind", address=ADA)])
        await session.commit()
        order = await session.get_one(Order, 1)
        await session.refresh(order, ["address"])
        assert order.address == LI
        await session.merge(Order(id=1, shop="acme", address=plain("merged")))
        await session.execute(insert(Order), [{"id": 3, "shop": "acme", "address": plain("3")}])
        async with place.vault.scope(tenant="acme"):
            await session.execute(update(Order).where(Order.id == 3).values(address=plain("new")))
        await session.delete(await session.get_one(Order, 2))
        await session.commit()
        stored = await session.run_sync(lambda _: place.stored(Order))
        assert {each.id: each.address for each in await session.scalars(select(Order))} == {
            1: plain("merged"),
            3: plain("new"),
        }
    assert stored == {
        1: {"address": ("acme", None, plain("merged"))},
        3: {"address": ("acme", None, plain("new"))},
    }


@pytest.mark.door("AsyncSession stream")
async def test_async_session_stream(place: Place) -> None:
    """Objects and rows as they come."""
    values = {number: plain(str(number)) for number in range(1, 8)}
    async with AsyncSession(place.asynchronous) as session:
        session.add_all(Order(id=key, shop=f"t{key % 2}", address=value) for key, value in values.items())
        await session.commit()
        ordered = select(Order).order_by(Order.id).execution_options(yield_per=3)
        assert {each.id: each.address async for each in await session.stream_scalars(ordered)} == values
        rows = await session.stream(select(Order.id, Order.shop, Order.address).order_by(Order.id))
        pages = [[row.address for row in page] async for page in rows.partitions(3)]
        assert [len(page) for page in pages] == [3, 3, 1]
        assert sum(pages, []) == list(values.values())  # noqa: RUF017 - three short lists
        stored = await session.run_sync(lambda _: place.stored(Order))
    assert stored == {key: {"address": (f"t{key % 2}", None, value)} for key, value in values.items()}


@pytest.mark.door("AsyncConnection")
async def test_async_connection(place: Place) -> None:
    """Core, awaited."""
    assert place.asynchronous is not None
    async with place.asynchronous.begin() as connection:
        await connection.execute(
            insert(ORDERS),
            [{"id": 1, "shop": "acme", "address": LI}, {"id": 2, "shop": "nordwind", "address": ADA}],
        )
        async with place.vault.scope(tenant="acme"):
            await connection.execute(insert(MEMOS).values(id=1, body=LI))
        await connection.execute(delete(MEMOS))
    async with place.asynchronous.connect() as connection:
        statement = select(ORDERS.c.id, ORDERS.c.shop, ORDERS.c.address).order_by(ORDERS.c.id)
        async with connection.stream(statement) as streamed:
            assert [row.address async for row in streamed] == [LI, ADA]
        stored = await connection.run_sync(lambda _: place.stored(ORDERS))
    assert stored == {1: {"address": ("acme", None, LI)}, 2: {"address": ("nordwind", None, ADA)}}
