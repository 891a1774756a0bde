"""The unit of work: mixed tenants in one flush, defaults, moves, and flushes that fail."""

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fieldvault import KeyScope, errors
from fieldvault.envelope import Envelope, from_text
from tests.sqlalchemy.shop import OTHER_SECRET, SECRET, Customer, Memo, Order
from tests.sqlalchemy.world import World, carriers_in, caught


def owners(world: World) -> dict[str, tuple[str, str | None]]:
    """Return whose key sealed each customer's name, from the bytes in the database."""
    keys = {key.key_id: (key.tenant, key.subject) for tenant in world.vault.tenants() for key in world.vault.keys(tenant)}
    return {row[0]: keys[Envelope.parse(row[1]).key_id] for row in world.raw("SELECT id, name FROM customers")}


def test_one_flush_seals_each_row_under_its_own_tenant_and_subject(world: World) -> None:
    """Rows of two shops and four people leave in one flush, each with that person's key."""
    rows = {f"p{number}": "acme" if number % 2 else "nordwind" for number in range(4)}
    world.save(*(Customer(id=key, shop=shop, name=SECRET) for key, shop in rows.items()))
    assert owners(world) == {key: (shop, key) for key, shop in rows.items()}
    assert not world.holds(SECRET)


def test_what_was_added_comes_back_as_it_was(any_world: World) -> None:
    """A new session reads what an old one wrote, on every database."""
    any_world.save(
        Customer(id="li", shop="acme", name="李雷", email="li@example.com", profile={"vip": True}),
        Customer(id="ada", shop="nordwind", name="", email=None, orders=[Order(shop="nordwind", address=SECRET)]),
    )
    with any_world.session() as session:
        li, ada = session.get_one(Customer, "li"), session.get_one(Customer, "ada")
        assert (li.name, li.email, li.profile, li.birthday) == ("李雷", "li@example.com", {"vip": True}, None)
        assert (ada.name, ada.email, ada.orders[0].address) == ("", None, SECRET)
    ((name, email),) = any_world.raw("SELECT name, email FROM customers WHERE id = 'li'")
    assert Envelope.parse(bytes(name)).serialize() == bytes(name)
    assert Envelope.parse(from_text(email))
