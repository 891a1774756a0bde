"""What the support desk asks."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import selectinload

from examples.shop.models import Customer
from examples.shop.services.service import Service


class Support(Service):
    """Finds customers."""

    async def by_phone(self, number: str) -> Sequence[Customer]:
        """The customers with this number, however they or the caller write it."""
        return await self._matching(Customer.phone == number)

    async def by_phone_end(self, four_digits: str) -> Sequence[Customer]:
        """The customers whose number ends in these four digits."""
        return await self._matching(Customer.phone_end == four_digits)

    async def page(self, number: int, size: int = 50) -> Sequence[Customer]:
        """A page of customers with their addresses, in the order in which they joined; pages count from 0."""
        mine = Customer.tenant_id == self.tenant
        query = (
            select(Customer)
            .where(mine, Customer.erased_at.is_(None))
            .options(selectinload(Customer.addresses))
            .order_by(Customer.joined_at, Customer.id)
            .limit(size)
            .offset(number * size)
        )
        return (await self.session.scalars(query)).all()

    async def _matching(self, criterion: ColumnElement[bool]) -> Sequence[Customer]:
        mine = Customer.tenant_id == self.tenant
        query = select(Customer).where(mine, criterion).order_by(Customer.joined_at, Customer.id)
        return (await self.session.scalars(query)).all()
