"""Whose a value is: the row says it, or the scope, or the vault's default; and nobody else's."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select

from fieldvault import errors
from fieldvault.sqlalchemy import protect
from tests.sqlalchemy.conftest import MakeVault
from tests.sqlalchemy.shop import CUSTOMERS, MEMOS, SECRET, Base, Customer, Memo, Order
from tests.sqlalchemy.world import World


@pytest.fixture
def default_world(world: World, make_vault: MakeVault) -> World:
    """Return a shop whose vault has a default tenant."""
    world.vault = make_vault(default_tenant="house")
    protect(Base, world.vault)
    return world


def test_the_ambient_scope_has_the_rows_that_do_not_say_whose_they_are(world: World) -> None:
    """Tenant and subject both."""
    with world.vault.scope(tenant="acme", subject="li"):
        world.save(Memo(body=SECRET))
        assert world.read(select(MEMOS.c.body)) == [(SECRET,)]
    assert {(key.tenant, key.subject) for key in world.vault.keys("acme", "li")} == {("acme", "li")}
    with world.vault.scope(tenant="acme"):
        assert world.read(select(MEMOS.c.body)) == [(SECRET,)]


def test_another_tenant_s_or_subject_s_scope_reads_nothing(world: World) -> None:
    """A named subject has to match; another tenant never does."""
    with world.vault.scope(tenant="acme", subject="li"):
        world.save(Memo(body=SECRET))
    with world.vault.scope(tenant="nordwind"), pytest.raises(errors.TenantMismatch):
        world.read(select(MEMOS.c.body))
    with world.vault.scope(tenant="acme", subject="ada"), pytest.raises(errors.DecryptionError):
        world.read(select(MEMOS.c.body))


def test_without_any_tenant_nothing_is_written_or_read(world: World) -> None:
    """ScopeRequired, on every door."""
    with pytest.raises(errors.ScopeRequired):
        world.save(Memo(body=SECRET))
    for statement in (insert(MEMOS).values(body=SECRET), insert(MEMOS).values([{"body": SECRET}])):
        with pytest.raises(errors.ScopeRequired):
            world.execute(statement)
    with pytest.raises(errors.ScopeRequired):
        world.execute(insert(MEMOS), [{"body": SECRET}, {"body": SECRET}])
    assert world.raw("SELECT * FROM memos") == []
    with world.vault.scope(tenant="acme"):
        world.save(Memo(body=SECRET))
    with pytest.raises(errors.ScopeRequired):
        world.read(select(MEMOS.c.body))
    with world.session() as session, pytest.raises(errors.ScopeRequired):
        session.scalars(select(Memo)).all()
    assert not world.holds(SECRET)


def test_a_default_tenant_has_what_nobody_claims(default_world: World) -> None:
    """Written and read without a scope; a scope goes before it."""
    world = default_world
    world.save(Memo(id=1, body=SECRET))
    assert world.read(select(MEMOS.c.body)) == [(SECRET,)]
    with world.vault.scope(tenant="acme"):
        world.save(Memo(id=2, body=SECRET))
        with pytest.raises(errors.TenantMismatch):
            world.read(select(MEMOS.c.body))
    assert list(world.vault.tenants()) == ["acme", "house"]


def test_a_default_tenant_confuses_no_row_that_says_whose_it_is(default_world: World) -> None:
    """Neither on writing nor on reading, alone or in pages of several tenants."""
    world = default_world
    world.save(Customer(id="li", shop="acme", name=SECRET), Order(id=1, shop="nordwind", address=SECRET))
    assert world.read(select(CUSTOMERS.c.shop, CUSTOMERS.c.name)) == [("acme", SECRET)]
    assert list(world.vault.tenants()) == ["acme", "nordwind"]
    with world.session() as session:
        assert session.get_one(Order, 1).address == SECRET
    with pytest.raises(errors.ScopeRequired):
        world.read(select(CUSTOMERS.c.name))


@pytest.mark.parametrize("form", ["flush", "Core", "bulk"])
def test_a_row_of_another_tenant_than_the_scope_is_not_written(world: World, form: str) -> None:
    """Work for one tenant never writes another's row."""
    row: dict[str, Any] = {"id": "li", "shop": "nordwind", "name": SECRET}
    actions: dict[str, Callable[[], None]] = {
        "flush": lambda: world.save(Customer(**row)),
        "Core": lambda: world.execute(insert(CUSTOMERS), row),
        "bulk": lambda: world.execute(insert(CUSTOMERS), [row, row | {"id": "ada"}]),
    }
    problem = "a row of customers belongs to another tenant"
    with world.vault.scope(tenant="acme"), pytest.raises(errors.TenantMismatch, match=problem):
        actions[form]()
    assert world.raw("SELECT * FROM customers") == []
    assert list(world.vault.tenants()) == []


def test_a_row_of_another_tenant_than_the_scope_is_not_read(world: World) -> None:
    """Though the row itself is whole."""
    world.save(Customer(id="li", shop="nordwind", name=SECRET))
    with world.vault.scope(tenant="acme"):
        with world.session() as session, pytest.raises(errors.TenantMismatch):
            session.get(Customer, "li")
        with pytest.raises(errors.TenantMismatch):
            world.read(select(CUSTOMERS.c.name))
    with world.vault.scope(tenant="nordwind"):
        assert world.read(select(CUSTOMERS.c.name)) == [(SECRET,)]
        with world.session() as session:
            assert session.get_one(Customer, "li").name == SECRET


def test_a_row_of_another_subject_than_the_scope_is_not_read(world: World) -> None:
    """Where the scope names one, it has to match."""
    world.save(Customer(id="li", shop="acme", name=SECRET), Customer(id="ada", shop="acme", name=SECRET))
    with world.vault.scope(tenant="acme", subject="li"):
        assert world.read(select(CUSTOMERS.c.name).where(CUSTOMERS.c.id == "li")) == [(SECRET,)]
        with pytest.raises(errors.DecryptionError):
            world.read(select(CUSTOMERS.c.name))


def test_a_single_column_is_read_across_subjects_under_the_tenant_s_scope(world: World) -> None:
    """The keys know whose they are; without the tenant the error says what to select."""
    world.save(*(Customer(id=f"p{number}", shop="acme", name=f"n{number}") for number in range(3)))
    with pytest.raises(errors.ScopeRequired, match="select that too, or work inside"):
        world.read(select(CUSTOMERS.c.name))
    with world.vault.scope(tenant="acme"):
        assert sorted(world.read(select(CUSTOMERS.c.name))) == [("n0",), ("n1",), ("n2",)]
    assert sorted(world.read(select(CUSTOMERS.c.shop, CUSTOMERS.c.name))) == [
        ("acme", "n0"),
        ("acme", "n1"),
        ("acme", "n2"),
    ]


def test_rows_of_no_subject_are_read_in_a_subject_s_scope(world: World) -> None:
    """A model whose rows are a tenant's alone does not take the scope's subject, on writing or reading."""
    with world.vault.scope(tenant="acme", subject="li"):
        world.save(Order(id=1, shop="acme", address=SECRET))
        with world.session() as session:
            assert session.get_one(Order, 1).address == SECRET
    assert {key.subject for key in world.vault.keys("acme")} == {None}


@pytest.mark.parametrize("shop", [None, ""])
def test_a_row_without_a_tenant_has_no_keys(world: World, shop: str | None) -> None:
    """Empty is no name."""
    kind = errors.ScopeRequired if shop is None else errors.ConfigurationError
    with pytest.raises(kind):
        world.save(Customer(shop=shop, name=SECRET))
    with pytest.raises(kind):
        world.execute(insert(CUSTOMERS), {"id": "li", "shop": shop, "name": SECRET})
    assert world.raw("SELECT * FROM customers") == []


def test_a_row_without_values_needs_no_scope(world: World) -> None:
    """NULL is sealed by nobody."""
    world.save(Memo(body=None), Customer(id="li", shop="acme"))
    assert world.read(select(MEMOS.c.body)) == [(None,)]
    assert world.read(select(CUSTOMERS.c.name)) == [(None,)]
    assert list(world.vault.tenants()) == []
