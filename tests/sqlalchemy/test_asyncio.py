"""The same through ``AsyncSession``: drivers hand rows to an event loop, and nothing else differs."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event, insert, make_url, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from fieldvault import errors
from fieldvault.sqlalchemy import protect
from fieldvault.testing.fakes import FaultyKMS
from tests.sqlalchemy.conftest import MakeVault
from tests.sqlalchemy.members import Club, Member
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, OTHER_SECRET, SECRET, Base, Customer, Memo, Order
from tests.sqlalchemy.world import carriers_in

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

Work = Callable[[AsyncEngine], Coroutine[Any, Any, None]]


@pytest.fixture(params=DRIVERS)
def run(request: pytest.FixtureRequest) -> Callable[[Work], None]:
    """Return a runner of coroutines with an engine of each asynchronous driver in turn."""
    url = make_url(request.getfixturevalue(f"{request.param}_url")).set(drivername=DRIVERS[request.param])

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield engine
        await engine.dispose()

    async def within(work: Work) -> None:
        async with opened() as engine:
            await work(engine)

    return lambda work: asyncio.run(within(work))


def test_rows_of_several_tenants_go_and_come_back(run: Callable[[Work], None], make_vault: MakeVault) -> None:
    """By flush, in bulk and by Core; by entity, relationship, stream and row."""
    protect(Base, make_vault())

    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            customer = Customer(id="li", shop="acme", name=SECRET, orders=[Order(shop="acme", address="x")])
            session.add_all([customer, Customer(id="ada", shop="nordwind", name=OTHER_SECRET)])
            await session.commit()
            assert carriers_in(customer) == []
            await session.execute(insert(Customer), [{"id": "b", "shop": "acme", "name": "bulk"}])
            await session.execute(insert(CUSTOMERS).values(id="c", shop="acme", name="core"))
            await session.commit()
        names = {"li": SECRET, "ada": OTHER_SECRET, "b": "bulk", "c": "core"}
        async with AsyncSession(engine) as session:
            assert {each.id: each.name for each in await session.scalars(select(Customer))} == names
            order = (await session.scalars(select(Order))).one()
            assert (order.address, order.shop) == ("x", "acme")
            streamed = await session.stream_scalars(select(Customer).execution_options(yield_per=2))
            assert {each.id: each.name async for each in streamed} == names
            loaded = await session.get_one(Customer, "li")
            session.expire(loaded, ["name"])
            await session.refresh(loaded, ["name"])
            assert loaded.name == SECRET
        async with engine.connect() as connection:
            rows = await connection.stream(select(CUSTOMERS.c.id, CUSTOMERS.c.shop, CUSTOMERS.c.name))
            assert {row.id: row.name async for row in rows} == names

    run(work)


def test_tasks_have_scopes_of_their_own(run: Callable[[Work], None], make_vault: MakeVault) -> None:
    """Many tasks of two tenants on one engine; each writes and reads its own."""
    vault = make_vault()
    protect(Base, vault)

    async def work(engine: AsyncEngine) -> None:
        turn = asyncio.Lock()

        async def one(number: int) -> None:
            async with vault.scope(tenant=f"t{number % 2}"), AsyncSession(engine) as session:
                async with turn:
                    session.add(Memo(id=number, body=f"by {number}"))
                    await session.commit()
                assert (await session.get_one(Memo, number)).body == f"by {number}"
                other = select(MEMOS.c.body).where(MEMOS.c.id == number - 1)
                if (await session.execute(select(MEMOS.c.id).where(MEMOS.c.id == number - 1))).first():
                    with pytest.raises(errors.TenantMismatch):
                        (await session.execute(other)).all()

        await asyncio.gather(*(one(number) for number in range(1, 11)))

    run(work)
    assert sorted(vault.tenants()) == ["t0", "t1"]


def test_what_fails_fails_alike(run: Callable[[Work], None], make_vault: MakeVault) -> None:
    """A moved value, a missing scope, a failed flush."""
    protect(Base, make_vault())

    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            session.add_all([Customer(id="li", shop="acme", name=SECRET), Customer(id="ada", shop="acme")])
            await session.commit()
            with pytest.raises(errors.ScopeRequired):
                await session.execute(update(Memo).values(body=SECRET))
        clash = Customer(id="li", shop="acme", name=SECRET)
        async with AsyncSession(engine) as session:
            session.add(clash)
            with pytest.raises(IntegrityError) as caught:
                await session.commit()
        assert (clash.name, carriers_in(clash)) == (SECRET, [])
        assert SECRET not in str(caught.value)
        async with engine.begin() as connection:
            await connection.exec_driver_sql(
                "UPDATE customers SET name = (SELECT name FROM customers WHERE id = 'li') WHERE id = 'ada'"
            )
        async with AsyncSession(engine) as session:
            with pytest.raises(errors.DecryptionError):
                await session.get(Customer, "ada")

    run(work)


async def _turns(work: Coroutine[Any, Any, None]) -> list[float]:
    """When the event loop got round to something else while a coroutine ran."""
    turns: list[float] = []
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.005)
        turns.append(time.monotonic())
    await task
    return turns


def test_a_cold_key_does_not_hold_up_the_event_loop(
    run: Callable[[Work], None], make_vault: MakeVault
) -> None:
    """Writing, reading and searching: whatever waits for the KMS waits in a thread."""
    vault = make_vault()
    assert isinstance(vault.kms, FaultyKMS)
    kms = vault.kms
    protect(Base, vault)
    protect(Club, vault)

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(Club.metadata.create_all)

        async def flush() -> None:
            async with AsyncSession(engine) as session:
                session.add(Customer(id="li", shop="acme", name=SECRET))
                session.add(Member(id="li", club="acme", email="li@example.com"))
                await session.commit()

        async def bulk() -> None:
            async with AsyncSession(engine) as session:
                await session.execute(insert(Customer), [{"id": "b", "shop": "nordwind", "name": "bulk"}])
                await session.commit()

        async def change() -> None:
            async with AsyncSession(engine) as session:
                customer = await session.get_one(Customer, "li")
                customer.name = "Li"
                await session.commit()

        async def read() -> None:
            async with AsyncSession(engine) as session:
                assert len((await session.scalars(select(Customer))).all()) == 2

        async def read_core() -> None:
            async with engine.connect() as connection:
                result = await connection.execute(select(CUSTOMERS.c.shop, CUSTOMERS.c.name))
                assert len(result.all()) == 2

        async def stream() -> None:
            async with AsyncSession(engine) as session:
                found = await session.stream_scalars(select(Customer).execution_options(yield_per=1))
                assert len([each async for each in found]) == 2

        async def search() -> None:
            async with AsyncSession(engine) as session:
                with vault.scope(tenant="acme"):
                    query = select(Member).where(Member.email == "li@example.com")
                    assert (await session.scalars(query)).one().id == "li"

        for step in (flush, bulk, change, read, read_core, stream, search):
            vault.ring.cache.drop(None)
            before = len(kms.calls)
            held = kms.hold()
            slow = threading.Timer(0.4, held.release)
            begun = time.monotonic()
            slow.start()
            turns = await _turns(step())
            slow.join()
            assert len(kms.calls) > before, step.__name__
            # A loop that waits for the KMS itself gets round to nothing until it is let go.
            assert sum(turn < begun + 0.4 for turn in turns) > 10, step.__name__
            kms.heal()

    run(work)


def test_the_keys_of_a_flush_come_before_its_first_statement(
    run: Callable[[Work], None], make_vault: MakeVault
) -> None:
    """In one batch, so that nobody waits for the KMS while the database holds locks."""
    vault = make_vault()
    assert isinstance(vault.kms, FaultyKMS)
    kms = vault.kms
    protect(Base, vault)
    order: list[str] = []

    async def work(engine: AsyncEngine) -> None:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: order.append(args[2][:6]))
        calls = len(kms.calls)
        async with AsyncSession(engine) as session:
            session.add_all(Customer(shop=f"shop{number}", name=SECRET) for number in range(20))
            session.add_all(Order(shop=f"shop{number}", address=OTHER_SECRET) for number in range(20))
            order.clear()
            await session.flush()
            assert order[0] == "INSERT"
            made = kms.calls[calls:]
            del kms.calls[:]
            await session.commit()
        assert len(made) <= 40 + 20
        assert kms.calls == []

    run(work)
