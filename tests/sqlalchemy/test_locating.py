"""An error of one value has a note of its column and row, and a message that is the same for all causes."""

import asyncio
import traceback
from operator import itemgetter
from typing import Any

import pytest
from sqlalchemy import String, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, defer, load_only, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.sqlalchemy import Encrypted, protect
from fieldvault.sqlalchemy.locating import located
from tests.sqlalchemy.shop import CUSTOMERS, SECRET, Customer, Memo, Order
from tests.sqlalchemy.world import World

IDS = [f"c{number}" for number in range(5)]


@pytest.fixture
def shop(world: World) -> World:
    """Return a shop with five customers of one tenant and one of another."""
    world.save(
        *(Customer(id=each, shop="acme", name=f"{SECRET} {each}", email=each) for each in IDS),
        Customer(id="ada", shop="nordwind", name="ada", email="ada@example.com"),
    )
    return world


_MOVED = "UPDATE customers SET name = (SELECT name FROM customers WHERE id = '{}') WHERE id = 'c3'"

CAUSES = {
    "tampered": "UPDATE customers SET name = CAST(substr(name, 1, 40) || x'00' AS BLOB) WHERE id = 'c3'",
    "another column": "UPDATE customers SET birthday = name WHERE id = 'c3'",
    "another subject": _MOVED.format("c1"),
    "unknown key": "UPDATE customers SET name = "
    "CAST(substr(name, 1, 3) || zeroblob(16) || substr(name, 20) AS BLOB) WHERE id = 'c3'",
    "another tenant": _MOVED.format("ada"),
    "plaintext": f"UPDATE customers SET name = CAST('{SECRET}' AS BLOB) WHERE id = 'c3'",
    "plaintext in text": f"UPDATE customers SET email = '{SECRET}' WHERE id = 'c3'",
    "no blob": "UPDATE customers SET name = 'text' WHERE id = 'c3'",
}


def refused(session: Session, statement: Any) -> errors.FieldVaultError:
    """Return the error of reading, which shows no plaintext."""
    with pytest.raises(errors.FieldVaultError) as caught:
        session.execute(statement).all()
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert all(note in told for note in caught.value.__notes__)
    return caught.value


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_the_note_names_column_and_row_whatever_the_cause(shop: World, cause: str, warm: bool) -> None:
    """The same words for all of them, also where the key has to be fetched first."""
    column = {"another column": "birthday", "plaintext in text": "email"}.get(cause, "name")
    shop.raw_execute(CAUSES[cause])
    if not warm:
        shop.vault.ring.cache.drop(None)
    with shop.session() as session:
        error = refused(session, select(Customer).order_by(Customer.id))
    assert error.__notes__ == [f"read from customers.{column}, of the row with id='c3'"]
    if type(error) is errors.DecryptionError:
        assert str(error) == str(errors.DecryptionError())
    assert error.__context__ is None


def test_all_ways_to_a_row_have_the_note(shop: World) -> None:
    """As long as the primary key is read with it, or known."""
    shop.raw_execute(CAUSES["another subject"])
    there = ["read from customers.name, of the row with id='c3'"]
    nowhere = ["read from customers.name, of a row whose primary key was not read with it"]
    with shop.session() as session:
        for statement in (
            select(CUSTOMERS.c.name, CUSTOMERS.c.id),
            select(CUSTOMERS.alias()),
            select(select(CUSTOMERS).subquery()),
            select(Customer).options(load_only(Customer.name)),
        ):
            with shop.vault.scope(tenant="acme"):
                assert refused(session, statement.where(text("shop = 'acme'"))).__notes__ == there
        with shop.vault.scope(tenant="acme", subject="c3"):
            only = select(Customer.name).where(Customer.id == "c3")
            assert refused(session, only).__notes__ == nowhere
        without = select(Customer).options(defer(Customer.name)).where(Customer.id == "c3")
        loaded = session.scalars(without).one()
        with pytest.raises(errors.DecryptionError) as caught:
            _ = loaded.name
        assert caught.value.__notes__ == there


def test_a_pinned_field_and_a_key_of_several_parts_are_named(world: World) -> None:
    """The column as the database has it, and what its values are bound to."""

    class Base(DeclarativeBase):
        pass

    class Line(Base):
        __tablename__ = "lines"
        __vault__ = KeyScope(tenant="shop")
        order: Mapped[int] = mapped_column("order_no", primary_key=True)
        place: Mapped[str] = mapped_column(String(20), primary_key=True)
        shop: Mapped[str]
        body: Mapped[str] = mapped_column("note_sealed", Encrypted(String, field="lines.note", bind_row=True))

    protect(Base, world.vault)
    Base.metadata.create_all(world.engine)
    world.save(*(Line(order=7, place=place, shop="acme", body=SECRET) for place in ("a", "b")))
    world.raw_execute(
        "UPDATE lines SET note_sealed = (SELECT note_sealed FROM lines WHERE place = 'a') WHERE place = 'b'"
    )
    with world.session() as session:
        error = refused(session, select(Line))
    assert error.__notes__ == [
        "read from lines.note_sealed (field lines.note), of the row with order_no=7, place='b'"
    ]


def test_an_unknown_key_is_noted_once_for_each_reader(shop: World) -> None:
    """The error of a key may be shared by threads that wait for it; the notes are each reader's own."""
    shop.raw_execute(CAUSES["unknown key"])
    notes = []
    for _ in range(2):
        with shop.session() as session:
            error = refused(session, select(Customer))
        assert type(error) is errors.KeyNotFound
        assert "has no key" in str(error)
        notes.append(error.__notes__)
    assert notes == [["read from customers.name, of the row with id='c3'"]] * 2
    shared = errors.KeyNotFound("the key store has no such key")
    name: Any = CUSTOMERS.c.name.type
    for place in (0, 1):
        told = located(shared, name, CUSTOMERS, [itemgetter(0)], [("c3", "c4")], place)
        assert (type(told), str(told)) == (errors.KeyNotFound, str(shared))
        assert told.__notes__ == [f"read from customers.name, of the row with id='c{place + 3}'"]
    assert not hasattr(shared, "__notes__")


def test_an_outage_is_not_noted(shop: World) -> None:
    """It is about no row."""
    shop.vault.ring.cache.drop(None)
    shop.kms.fail(errors.KMSDenied("revoked"))
    with shop.session() as session, pytest.raises(errors.KMSDenied) as caught:
        session.scalars(select(Customer)).all()
    assert not hasattr(caught.value, "__notes__")


def test_of_several_columns_the_one_that_is_refused_is_named(shop: World) -> None:
    """Though the keys of all of them are fetched together, with what is no ciphertext among them."""
    shop.save(Memo(id=1, body=None), Order(id=1, shop="acme", customer_id="c1", address="here"))
    shop.raw_execute("UPDATE orders SET address = CAST('plain' AS BLOB) WHERE id = 1")
    shop.raw_execute(CAUSES["plaintext in text"])
    shop.vault.ring.cache.drop(None)
    with shop.session() as session:
        error = refused(session, select(Customer.id, Customer.shop, Customer.name, Customer.email))
        assert error.__notes__ == ["read from customers.email, of the row with id='c3'"]
        error = refused(session, select(Order, Customer).join(Order.customer))
        assert error.__notes__ == ["read from orders.address, of the row with id=1"]


def test_it_is_the_same_beside_an_event_loop(shop: World, sqlite_url: str) -> None:
    """Where keys are fetched before anything is opened."""
    shop.raw_execute(CAUSES["plaintext in text"])
    shop.vault.ring.cache.drop(None)

    async def work() -> list[str]:
        engine = create_async_engine(make_url(sqlite_url).set(drivername="sqlite+aiosqlite"))
        async with AsyncSession(engine) as session:
            with pytest.raises(errors.MalformedCiphertext) as caught:
                await session.scalars(select(Customer))
        await engine.dispose()
        return caught.value.__notes__

    assert asyncio.run(work()) == ["read from customers.email, of the row with id='c3'"]
