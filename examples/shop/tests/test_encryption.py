"""What the switch changes: nothing for the services, everything for whoever has the database's bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, literal_column, make_url, select

from examples.shop.app import Request, Shop
from examples.shop.encryption import ENCRYPTED
from examples.shop.models import Base, Customer
from examples.shop.services.accounts import SignUp
from examples.shop.tests.people import ADA, CUP, HOME, LI, NOTE, SECRETS, TEA, WORK


async def fill(request: Request, form: SignUp) -> Customer:
    """Sign up a customer with two addresses and an order."""
    customer = await request.accounts.sign_up(form)
    await request.orders.set_address(customer.id, "home", HOME)
    await request.orders.set_address(customer.id, "work", WORK)
    await request.orders.place(customer.id, [TEA, CUP], HOME, NOTE)
    return customer


@pytest.fixture
def file(database: str) -> Path:
    """Return the database's file."""
    name = make_url(database).database
    if not database.startswith("sqlite") or name is None:
        pytest.skip("this database is no file")
    return Path(name)


def found_in(path: Path, sought: Iterable[str]) -> set[str]:
    """Return what of it the file, its journal or its log holds, in UTF-8 or as JSON writes them."""
    content = b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    forms = {each: (each.encode(), each.encode("unicode_escape")) for each in sought}
    return {each for each, encoded in forms.items() if any(form in content for form in encoded)}


async def test_the_file_holds_no_plaintext_with_encryption_on(shop: Shop, file: Path) -> None:
    """With encryption off it holds all of it, so the search would find it."""
    async with shop.request("acme") as request:
        await fill(request, LI)
    assert found_in(file, SECRETS) == (set() if ENCRYPTED else set(SECRETS))
    assert found_in(file, [TEA.article, "acme"]) == {TEA.article, "acme"}


async def test_after_an_erasure_a_copy_from_before_is_unreadable_with_encryption_on(
    shop: Shop, file: Path, vault: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """Of the erased customer; the others' values stay. With encryption off the copy keeps everything."""
    async with shop.request("acme") as request:
        li, ada = await fill(request, LI), await fill(request, ADA)
    await shop.engine.dispose()
    copy = tmp_path / "copy.db"
    shutil.copy(file, copy)
    async with shop.request("acme") as request:
        await request.privacy.erase(li.id, actor="support@acme", reason="asked to be forgotten")

    restored = Shop.open(f"sqlite+aiosqlite:///{copy}", vault)
    async with restored.request("acme") as request:
        (order,) = await request.orders.history(li.id)
        gone, stays = await request.support.page(0)
        values = [
            *(gone.name, gone.email, gone.phone, gone.birthday, gone.identity_number, gone.password_hash),
            *(value for each in gone.addresses for value in (each.recipient, each.street, each.city)),
            *(order.ship_to, order.note),
        ]
        assert (stays.id, stays.name, stays.addresses[0].city) == (ada.id, ADA.name, HOME.city)
    await restored.close()
    if ENCRYPTED:
        assert values == [None] * len(values)
    else:
        assert None not in values


async def test_what_an_erasure_leaves_in_the_tables_is_nothing_of_the_person(shop: Shop) -> None:
    """On every database, in every personal column, and in those that it was found by."""
    async with shop.request("acme") as request:
        li, ada = await fill(request, LI), await fill(request, ADA)
        await request.privacy.erase(li.id, actor="support@acme", reason="asked to be forgotten")
    plain = {"id", "tenant_id", "customer_id", "joined_at", "erased_at", "placed_at", "label"}
    async with shop.engine.connect() as connection:
        for table, whose in {"customers": "id", "addresses": "customer_id", "orders": "customer_id"}.items():
            # Without the models: cells as the database has them.
            stored = Base.metadata.tables[table]
            cells: list[ColumnElement[Any]] = [
                literal_column(column.name) for column in stored.c if column.name not in plain
            ]
            for customer, is_erased in ((li, True), (ada, False)):
                found = await connection.execute(select(*cells).where(stored.c[whose] == customer.id))
                values = [value for row in found for value in row]
                assert values
                assert all(value is None for value in values) is is_erased
