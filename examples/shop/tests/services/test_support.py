"""The support desk's searches and pages."""

from __future__ import annotations

from dataclasses import replace

from examples.shop.app import Shop
from examples.shop.models import Customer
from examples.shop.tests.people import ADA, HOME, LI, WORK


async def test_a_customer_is_found_by_phone_however_it_is_written(shop: Shop) -> None:
    """And nobody else is."""
    async with shop.request("acme") as request:
        li = await request.accounts.sign_up(LI)
        await request.accounts.sign_up(ADA)
    for number in ("+86 138-0013-8000", "0086 138 0013 8000", "13800138000", "０１３８００１３８０００"):
        async with shop.request("acme") as request:
            assert [each.id for each in await request.support.by_phone(number)] == [li.id]
        async with shop.request("nordwind") as request:
            assert await request.support.by_phone(number) == []
    async with shop.request("acme") as request:
        assert await request.support.by_phone("+1 138 0013 8000") == []


async def test_customers_are_found_by_the_last_four_digits(shop: Shop) -> None:
    """All that have them, and none that only has a token in common with them."""
    numbers = [None, "138 0014 80-00", *(f"+86 1380013 {end:04}" for end in range(7900, 8100))]
    async with shop.request("acme") as request:
        request.session.add_all(Customer(tenant_id="acme", phone=number) for number in numbers)
    async with shop.request("acme") as request:
        for end, expected in {
            "8000": {"+86 1380013 8000", "138 0014 80-00"},
            "7981": {"+86 1380013 7981"},
            "1380": set[str](),
        }.items():
            assert {each.phone for each in await request.support.by_phone_end(end)} == expected


async def test_a_change_of_phone_is_found_under_the_new_number_only(shop: Shop) -> None:
    """The lookup columns follow."""
    async with shop.request("acme") as request:
        li = await request.accounts.sign_up(LI)
    async with shop.request("acme") as request:
        (await request.accounts.customer(li.id)).phone = "139 1111 2222"
    async with shop.request("acme") as request:
        assert [each.id for each in await request.support.by_phone("+8613911112222")] == [li.id]
        assert [each.id for each in await request.support.by_phone_end("2222")] == [li.id]
        assert await request.support.by_phone("13800138000") == []
        assert await request.support.by_phone_end("8000") == []


async def test_a_page_shows_customers_with_their_addresses(shop: Shop) -> None:
    """In the order in which they joined, the tenant's own only."""
    for tenant in ("acme", "nordwind"):
        async with shop.request(tenant) as request:
            for number in range(5):
                form = replace(LI, name=f"{tenant} {number}", email=f"{number}@example.com")
                customer = await request.accounts.sign_up(form)
                await request.orders.set_address(customer.id, "home", replace(HOME, street=f"{number}"))
                await request.orders.set_address(customer.id, "work", WORK)
    async with shop.request("acme") as request:
        pages = [await request.support.page(number, 2) for number in range(4)]
        assert [[each.name for each in page] for page in pages] == [
            ["acme 0", "acme 1"], ["acme 2", "acme 3"], ["acme 4"], []
        ]  # fmt: skip
        assert [[each.street for each in customer.addresses] for customer in pages[1]] == [
            ["2", WORK.street], ["3", WORK.street]
        ]  # fmt: skip
