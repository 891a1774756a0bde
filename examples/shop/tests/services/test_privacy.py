"""Export and erasure."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict

import pytest

from examples.shop.app import Shop
from examples.shop.encryption import ENCRYPTED
from examples.shop.errors import LoginFailed, NotFound
from examples.shop.models import Customer
from examples.shop.tests.people import ADA, CUP, HOME, LI, NOTE, PHRASE, TEA, WORK


async def join(shop: Shop) -> tuple[Customer, Customer]:
    """Sign up two customers, each with an address and an order."""
    async with shop.request("acme") as request:
        li, ada = await request.accounts.sign_up(LI), await request.accounts.sign_up(ADA)
        for customer, address in ((li, HOME), (ada, WORK)):
            await request.orders.set_address(customer.id, "home", address)
            await request.orders.place(customer.id, [TEA, CUP], address, NOTE)
    return li, ada


async def erase(shop: Shop, customer_id: uuid.UUID) -> bool:
    """Erase in a request of its own."""
    async with shop.request("acme") as request:
        done = await request.privacy.erase(customer_id, actor="support@acme", reason="asked to be forgotten")
        assert done.customer_id == customer_id
        return done.everywhere


async def test_an_export_has_all_of_a_customer_and_is_json(shop: Shop) -> None:
    """In the clear: it is for the customer."""
    li, _ = await join(shop)
    async with shop.request("acme") as request:
        exported = json.loads(json.dumps(await request.privacy.export(li.id)))
    (order,) = exported.pop("orders")
    assert exported == {
        "name": LI.name,
        "email": LI.email,
        "phone": LI.phone,
        "birthday": "1990-05-17",
        "identity_number": LI.identity_number,
        "addresses": {"home": asdict(HOME)},
    }
    assert (order["ship_to"], order["note"]) == (asdict(HOME), NOTE)
    assert order["articles"] == [[TEA.article, 2, 1950], ["Cup", 1, 800]]
    async with shop.request("nordwind") as request:
        with pytest.raises(NotFound):
            await request.privacy.export(li.id)


async def test_an_erased_customer_is_gone_and_the_others_stay(shop: Shop) -> None:
    """What was bought stays; who bought it, and every way to find them, does not."""
    li, ada = await join(shop)
    assert await erase(shop, li.id) is ENCRYPTED
    async with shop.request("acme") as request:
        with pytest.raises(LoginFailed):
            await request.accounts.log_in(LI.email, PHRASE)
        assert await request.support.by_phone("13800138000") == []
        assert await request.support.by_phone_end("8000") == []
        for refused in (request.privacy.export(li.id), request.orders.place(li.id, [TEA], HOME)):
            with pytest.raises(NotFound):
                await refused
        (order,) = await request.orders.history(li.id)
        assert (order.total, order.ship_to, order.note) == (4700, None, None)
    async with shop.request("acme") as request:
        assert (await request.accounts.log_in(ADA.email, PHRASE)).name == ADA.name
        (found,) = await request.support.page(0)
        assert (found.id, found.phone, found.addresses[0].city) == (ada.id, ADA.phone, "Hamburg")
        assert (await request.privacy.export(ada.id))["orders"][0]["note"] == NOTE


async def test_an_erased_address_may_sign_up_again(shop: Shop) -> None:
    """As somebody new, whom nothing joins to the former customer."""
    li, _ = await join(shop)
    await erase(shop, li.id)
    async with shop.request("acme") as request:
        again = await request.accounts.sign_up(LI)
        assert again.id != li.id
        assert await request.orders.history(again.id) == []


async def test_an_erasure_may_be_repeated_and_is_its_own_tenants(shop: Shop) -> None:
    """It ends in the same state."""
    li, _ = await join(shop)
    async with shop.request("nordwind") as request:
        with pytest.raises(NotFound):
            await request.privacy.erase(li.id, actor="support@nordwind", reason="a mistake")
    async with shop.request("acme") as request:
        assert (await request.accounts.log_in(LI.email, PHRASE)).name == LI.name
    for _ in range(2):
        await erase(shop, li.id)
    async with shop.request("acme") as request:
        assert await request.support.by_phone("13800138000") == []
