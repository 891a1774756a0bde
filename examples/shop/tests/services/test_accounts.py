"""Sign up and login."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from examples.shop.app import Shop
from examples.shop.errors import EmailTaken, LoginFailed
from examples.shop.models import Customer
from examples.shop.services.accounts import SignUp
from examples.shop.tests.people import ADA, LI, PHRASE


async def sign_up(shop: Shop, tenant: str, form: SignUp) -> Customer:
    """Sign up in a request of its own."""
    async with shop.request(tenant) as request:
        return await request.accounts.sign_up(form)


async def test_a_customer_logs_in_by_email_in_whatever_case(shop: Shop) -> None:
    """And finds what they filled in."""
    await sign_up(shop, "acme", ADA)
    joined = await sign_up(shop, "acme", LI)
    for email in ("li.lei@example.com", " LI.LEI@EXAMPLE.COM", "Li.Lei@Example.com"):
        async with shop.request("acme") as request:
            found = await request.accounts.log_in(email, PHRASE)
            assert (found.id, found.name, found.email) == (joined.id, "李雷", "Li.Lei@Example.com")
            assert (found.birthday, found.identity_number) == (LI.birthday, LI.identity_number)


async def test_nobody_else_logs_in(shop: Shop) -> None:
    """Not with another password or address, and not at another tenant; which of them it was is not told."""
    await sign_up(shop, "acme", LI)
    for tenant, email, password in (
        ("acme", LI.email, PHRASE.upper()),
        ("acme", LI.email, ""),
        ("acme", "nobody@example.com", PHRASE),
        ("nordwind", LI.email, PHRASE),
    ):
        async with shop.request(tenant) as request:
            with pytest.raises(LoginFailed, match="the e-mail address or the password is wrong"):
                await request.accounts.log_in(email, password)


async def test_an_address_has_one_account_a_tenant(shop: Shop) -> None:
    """However it is written; another tenant may have the same customer."""
    await sign_up(shop, "acme", LI)
    with pytest.raises(EmailTaken) as caught:
        await sign_up(shop, "acme", SignUp(name="Li", email="LI.LEI@example.com", password=PHRASE))
    assert "li" not in str(caught.value).lower().split()
    assert caught.value.__cause__ is caught.value.__context__ is None
    await sign_up(shop, "nordwind", LI)


async def test_two_sign_ups_at_once_make_one_account(shop: Shop) -> None:
    """Each has looked at nothing before it writes: the database decides."""
    forms = [SignUp(name=str(number), email=LI.email, password=PHRASE) for number in range(6)]
    answers = await asyncio.gather(*(sign_up(shop, "acme", form) for form in forms), return_exceptions=True)
    accounts = [each for each in answers if isinstance(each, Customer)]
    assert [type(each) for each in answers if each not in accounts] == [EmailTaken] * 5
    async with shop.request("acme") as request:
        assert await request.session.scalar(select(func.count()).select_from(Customer)) == 1
        assert (await request.accounts.log_in(LI.email, PHRASE)).id == accounts[0].id


async def test_another_refusal_of_the_database_is_not_taken_for_a_taken_address(shop: Shop) -> None:
    """Here, a primary key that is there already."""
    joined = await sign_up(shop, "acme", LI)

    async def clash() -> None:
        async with shop.request("acme") as request:
            request.session.add(Customer(id=joined.id, tenant_id="acme"))
            await request.accounts.sign_up(ADA)

    with pytest.raises(IntegrityError):
        await clash()
