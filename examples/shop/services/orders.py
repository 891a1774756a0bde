"""Addresses and orders."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from examples.shop.models import Address, Customer, Order, OrderLine
from examples.shop.services.service import Service


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PostalAddress:
    """Where something is sent."""

    recipient: str
    street: str
    city: str
    postcode: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """So many of one article at a price in cents."""

    article: str
    quantity: int
    price: int


class Orders(Service):
    """What customers buy, and where it goes."""

    async def set_address(self, customer_id: uuid.UUID, label: str, address: PostalAddress) -> Address:
        """The address of this label is from now on that one.

        Raises:
            NotFound: there is no such customer.
        """
        customer = await self.customer(customer_id, selectinload(Customer.addresses))
        found = next((each for each in customer.addresses if each.label == label), None)
        if found is None:
            found = Address(label=label)
            customer.addresses.append(found)
        for name, value in asdict(address).items():
            setattr(found, name, value)
        await self.session.flush()
        return found

    async def place(
        self, customer_id: uuid.UUID, items: Sequence[Item], ship_to: PostalAddress, note: str | None = None
    ) -> Order:
        """A new order; it keeps the address as it was when the order was placed.

        Raises:
            NotFound: there is no such customer.
        """
        customer = await self.customer(customer_id)
        lines = [OrderLine(position=number, **asdict(item)) for number, item in enumerate(items, 1)]
        order = Order(customer=customer, lines=lines, ship_to=asdict(ship_to), note=note)
        self.session.add(order)
        await self.session.flush()
        return order

    async def history(self, customer_id: uuid.UUID) -> Sequence[Order]:
        """A customer's orders with their lines, the oldest first."""
        mine = Order.tenant_id == self.tenant
        query = (
            select(Order)
            .where(mine, Order.customer_id == customer_id)
            .options(selectinload(Order.lines))
            .order_by(Order.placed_at, Order.id)
        )
        return (await self.session.scalars(query)).all()
