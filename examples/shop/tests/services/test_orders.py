"""Addresses and orders."""

from __future__ import annotations

import uuid
from dataclasses import asdict

import pytest

from examples.shop.app import Shop
from examples.shop.errors import NotFound
from examples.shop.tests.people import CUP, HOME, LI, NOTE, TEA, WORK


async def test_a_change_of_address_keeps_the_others_and_the_orders(shop: Shop) -> None:
    """An order shows where it was sent, not where the customer lives now."""
    async with shop.request("acme") as request:
        li = await request.accounts.sign_up(LI)
        await request.orders.set_address(li.id, "home", HOME)
        await request.orders.set_address(li.id, "work", WORK)
        await request.orders.place(li.id, [TEA], HOME)
    async with shop.request("acme") as request:
        await request.orders.set_address(li.id, "home", WORK)
    async with shop.request("acme") as request:
        (found,) = await request.support.page(0)
        assert [(each.label, each.street, each.postcode) for each in found.addresses] == [
            ("home", WORK.street, None),
            ("work", WORK.street, None),
        ]
        (order,) = await request.orders.history(li.id)
        assert order.ship_to == asdict(HOME)


async def test_the_history_has_every_order_with_its_lines(shop: Shop) -> None:
    """The oldest first."""
    async with shop.request("acme") as request:
        li = await request.accounts.sign_up(LI)
        await request.orders.place(li.id, [TEA, CUP], HOME, NOTE)
        await request.orders.place(li.id, [CUP], WORK)
    async with shop.request("acme") as request:
        first, second = await request.orders.history(li.id)
        assert (first.total, second.total) == (4700, 800)
        assert [(line.article, line.quantity) for line in first.lines] == [(TEA.article, 2), ("Cup", 1)]
        assert (first.note, second.note) == (NOTE, None)


async def test_a_customer_of_another_tenant_is_nobody(shop: Shop) -> None:
    """For addresses, orders and the history alike."""
    async with shop.request("acme") as request:
        li = await request.accounts.sign_up(LI)
        await request.orders.place(li.id, [TEA], HOME)
    for tenant, customer_id in (("nordwind", li.id), ("acme", uuid.uuid4())):
        async with shop.request(tenant) as request:
            with pytest.raises(NotFound):
                await request.orders.set_address(customer_id, "home", WORK)
            with pytest.raises(NotFound):
                await request.orders.place(customer_id, [TEA], HOME)
            assert await request.orders.history(customer_id) == []
