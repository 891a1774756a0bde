"""What a customer may ask for by law: all of their data, and its end."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from examples.shop.encryption import Protection, personal_columns
from examples.shop.models import Address, Customer, Order
from examples.shop.services.service import Service


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was done: ``everywhere`` says that copies and backups of the database are unreadable too."""

    customer_id: uuid.UUID
    everywhere: bool


class Privacy(Service):
    """Export and erasure."""

    def __init__(self, session: AsyncSession, tenant: str, protection: Protection) -> None:
        super().__init__(session, tenant)
        self.protection = protection

    async def export(self, customer_id: uuid.UUID) -> dict[str, Any]:
        """All that the shop has of a customer, ready for JSON.

        Raises:
            NotFound: there is no such customer, or none any more.
        """
        orders = selectinload(Customer.orders).selectinload(Order.lines)
        customer = await self.customer(customer_id, selectinload(Customer.addresses), orders)
        return {
            "name": customer.name,
            "email": customer.email,
            "phone": customer.phone,
            "birthday": None if customer.birthday is None else customer.birthday.isoformat(),
            "identity_number": customer.identity_number,
            "addresses": {
                each.label: {name: getattr(each, name) for name in personal_columns(Address)}
                for each in customer.addresses
            },
            "orders": [
                {
                    "placed_at": order.placed_at.isoformat(),
                    "ship_to": order.ship_to,
                    "note": order.note,
                    "articles": [[line.article, line.quantity, line.price] for line in order.lines],
                }
                for order in customer.orders
            ],
        }

    async def erase(self, customer_id: uuid.UUID, *, actor: str, reason: str) -> Erasure:
        """Destroy what is personal of a customer; orders stay as the shop's own record. Safe to repeat.

        The keys go first: what another request writes in between is refused then, and not left behind.

        Raises:
            NotFound: there is no such customer.
        """
        customer = await self.customer(customer_id, erased=True)
        everywhere = await self.protection.forget(self.tenant, str(customer_id), actor=actor, reason=reason)
        whose = {Customer: Customer.id, Address: Address.customer_id, Order: Order.customer_id}
        for model, key in whose.items():
            nothing = dict.fromkeys(personal_columns(model))
            await self.session.execute(update(model).where(key == customer_id).values(nothing))
        customer.erased_at = datetime.now(UTC).replace(tzinfo=None)
        await self.session.flush()
        return Erasure(customer_id, everywhere)
