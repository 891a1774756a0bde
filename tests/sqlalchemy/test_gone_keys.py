"""Rows whose keys are gone: read as erased, and still overwritten, cleared and deleted."""

from typing import Any

import pytest
from sqlalchemy import String, delete, null, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fieldvault import KeyScope, errors
from fieldvault.keys.records import KeyState, Purpose
from fieldvault.sqlalchemy import RAISE, Encrypted, protect
from tests.sqlalchemy.shop import CUSTOMERS, ORDERS, Customer, Order
from tests.sqlalchemy.world import World


@pytest.fixture
def shredded(any_world: World) -> World:
    """Return a shop one of whose customers was shredded."""
    any_world.save(
        Customer(id="li", shop="acme", name="Li", city="Jena"), Customer(id="wu", shop="acme", name="Wu")
    )
    any_world.vault.shred("acme", "li", actor="test", reason="asked")
    return any_world


def names(world: World) -> dict[str, Any]:
    """Return the cells of names, as they are stored."""
    return dict(world.raw("SELECT id, name FROM customers"))


def test_a_value_whose_key_was_destroyed_is_overwritten(any_world: World) -> None:
    """Under the key that came after it; the object was loaded with nothing in the value's place."""
    any_world.save(Order(id=1, shop="acme", address="Weg 1"))
    any_world.vault.rotate("acme")
    (old,) = [
        key
        for key in any_world.vault.keys("acme")
        if key.purpose is Purpose.DATA and key.state is KeyState.RETIRED
    ]
    assert any_world.store.transition(old.key_id, expect=KeyState.RETIRED, to=KeyState.DESTROYED)
    any_world.vault.ring.lease.renew()
    with any_world.session() as session:
        order = session.get_one(Order, 1)
        assert order.address is None
        order.address = "Weg 2"
        session.commit()
        assert order.address == "Weg 2"
    with any_world.vault.scope(tenant="acme"):
        any_world.execute(update(ORDERS).values(address="Weg 3"))
        assert any_world.read(select(ORDERS.c.address)) == [("Weg 3",)]


def test_a_shredded_persons_values_are_cleared(shredded: World) -> None:
    """By a statement, or on the object by NULL itself: None stands there already, and is no change."""
    with shredded.session() as session:
        li = session.get_one(Customer, "li")
        assert (li.name, li.city) == (None, "Jena")
        li.name = None
        assert session.is_modified(li) is False
        li.city = None
        session.flush()
        assert names(shredded)["li"] is not None
        li.name = null()
        session.commit()
        assert li.name is None
    assert names(shredded)["li"] is None
    assert names(shredded)["wu"] is not None


def test_a_statement_clears_them_as_well(shredded: World) -> None:
    """Within the person's scope, or by the row."""
    with shredded.vault.scope(tenant="acme", subject="li"):
        shredded.execute(update(CUSTOMERS).values(name=None))
    assert [names(shredded)[id_] is None for id_ in ("li", "wu")] == [True, False]


def test_a_shredded_person_gets_no_new_values(shredded: World) -> None:
    """That is what the fence is for."""
    with shredded.session() as session:
        session.get_one(Customer, "li").name = "Li again"
        with pytest.raises(errors.KeyShredded):
            session.commit()


@pytest.mark.parametrize("how", ["object", "statement"])
def test_a_shredded_row_is_deleted(shredded: World, how: str) -> None:
    """Nothing has to be opened for that."""
    with shredded.session() as session:
        if how == "object":
            session.delete(session.get_one(Customer, "li"))
        else:
            session.execute(delete(Customer).where(Customer.id == "li"))
        session.commit()
    assert list(names(shredded)) == ["wu"]


def test_where_reading_raises_the_row_is_still_cleared_and_deleted(any_world: World) -> None:
    """It cannot be loaded; statements do not load it."""

    class Own(DeclarativeBase):
        pass

    class Note(Own):
        __tablename__ = "strict_notes"
        __vault__ = KeyScope(tenant="shop")
        id: Mapped[int] = mapped_column(primary_key=True)
        shop: Mapped[str] = mapped_column(String(20))
        text: Mapped[str | None] = mapped_column(Encrypted(String(20), erased=RAISE))

    Own.metadata.create_all(any_world.engine)
    protect(Own, any_world.vault)
    any_world.save(Note(id=1, shop="gone", text="x"), Note(id=2, shop="gone", text="y"))
    any_world.vault.shred("gone", actor="test", reason="asked")
    with any_world.session() as session:
        with pytest.raises(errors.KeyShredded):
            session.get(Note, 1)
        with any_world.vault.scope(tenant="gone"):
            session.execute(update(Note).where(Note.id == 1).values(text=None))
        session.execute(delete(Note).where(Note.id == 2))
        session.commit()
        assert session.get_one(Note, 1).text is None
        assert session.get(Note, 2) is None
