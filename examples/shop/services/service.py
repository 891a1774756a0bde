"""What all services share."""

from __future__ import annotations

import uuid

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.interfaces import ORMOption

from examples.shop.errors import NotFound
from examples.shop.models import Customer


class Service:
    """Works for one tenant in one session; who opened the session commits."""

    def __init__(self, session: AsyncSession, tenant: str) -> None:
        self.session = session
        self.tenant = tenant

    async def customer(self, customer_id: uuid.UUID, *load: ORMOption, erased: bool = False) -> Customer:
        """The tenant's customer; where asked for, also one who was erased.

        Raises:
            NotFound: another tenant's, an erased one, or nobody.
        """
        mine = Customer.tenant_id == self.tenant
        query = select(Customer).where(mine, Customer.id == customer_id).options(*load)
        found = await self.session.scalar(query)
        if found is None or (found.erased_at is not None and not erased):
            raise NotFound
        return found
