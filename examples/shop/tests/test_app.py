"""Requests: one tenant each, many at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from examples.shop.app import Shop
from examples.shop.encryption import ENCRYPTED
from examples.shop.models import Customer, Tenant
from examples.shop.tests.people import ADA, HOME, LI, PHRASE
from fieldvault.errors import TenantMismatch


async def test_two_tenants_work_at_once_and_each_sees_its_own(shop: Shop) -> None:
    """Their tasks take turns in one loop, the e-mail addresses and phones are the same."""
    both_are_in = asyncio.Barrier(2)

    async def work(tenant: str) -> list[tuple[str | None, str | None]]:
        async with shop.request(tenant) as request:
            customer = await request.accounts.sign_up(replace(LI, name=f"Li of {tenant}"))
            await request.orders.set_address(customer.id, "home", replace(HOME, city=tenant))
        await both_are_in.wait()
        async with shop.request(tenant) as request:
            await both_are_in.wait()
            found = await request.accounts.log_in(LI.email, PHRASE)
            await both_are_in.wait()
            found.birthday = None
            await both_are_in.wait()
            called = await request.support.by_phone("13800138000")
            customers = [found, *called, *await request.support.page(0)]
            return [(each.name, each.addresses[0].city) for each in customers]

    mine, theirs = await asyncio.gather(work("acme"), work("nordwind"))
    assert mine == [("Li of acme", "acme")] * 3
    assert theirs == [("Li of nordwind", "nordwind")] * 3


async def test_a_request_that_fails_leaves_nothing(shop: Shop) -> None:
    """It is one transaction."""

    async def fail() -> None:
        async with shop.request("acme") as request:
            await request.accounts.sign_up(LI)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with shop.request("acme") as request:
        assert await request.support.page(0) == []
        await request.accounts.sign_up(LI)


async def test_a_forgotten_tenant_in_a_query_is_an_error_with_encryption_on(shop: Shop) -> None:
    """With encryption off it is a leak, and nobody notices."""
    async with shop.request("nordwind") as request:
        await request.accounts.sign_up(ADA)
    async with shop.request("acme") as request:
        everybody = select(Customer.name)
        if ENCRYPTED:
            with pytest.raises(TenantMismatch):
                await request.session.scalars(everybody)
        else:
            assert (await request.session.scalars(everybody)).all() == [ADA.name]


async def test_a_tenant_has_values_of_its_own(shop: Shop) -> None:
    """They are nobody's in particular, and under the tenant's key."""
    async with shop.request("acme") as request:
        tenant = await request.session.get_one(Tenant, "acme")
        assert tenant.bank_account == "DE02 1203 acme"
