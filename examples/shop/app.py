"""``Shop``: the application put together, with one session and one scope a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from examples.shop.encryption import Protection
from examples.shop.models import Base, Tenant
from examples.shop.services.accounts import Accounts
from examples.shop.services.orders import Orders
from examples.shop.services.privacy import Privacy
from examples.shop.services.support import Support


@dataclass(frozen=True, slots=True)
class Request:
    """The services, for one tenant and in one transaction."""

    session: AsyncSession
    accounts: Accounts
    orders: Orders
    support: Support
    privacy: Privacy


@dataclass(frozen=True, slots=True)
class Shop:
    """The application of a process."""

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    protection: Protection

    @classmethod
    def open(cls, url: str, vault: str | Mapping[str, Any]) -> Self:
        """The shop on a database, with the vault of a configuration."""
        engine = create_async_engine(url)
        return cls(engine, async_sessionmaker(engine, expire_on_commit=False), Protection.of(Base, vault))

    async def create_tables(self) -> None:
        """Make the tables where they are missing."""
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def open_tenant(self, tenant: str, *, title: str, bank_account: str | None = None) -> None:
        """Take in another tenant."""
        with self.protection.scope(tenant):
            async with self.sessions.begin() as session:
                session.add(Tenant(id=tenant, title=title, bank_account=bank_account))

    @asynccontextmanager
    async def request(self, tenant: str) -> AsyncIterator[Request]:
        """One request of a tenant: committed at its end, rolled back where it fails."""
        with self.protection.scope(tenant):
            async with self.sessions.begin() as session:
                yield Request(
                    session,
                    Accounts(session, tenant),
                    Orders(session, tenant),
                    Support(session, tenant),
                    Privacy(session, tenant, self.protection),
                )

    async def close(self) -> None:
        """Close connections and vault."""
        await self.engine.dispose()
        self.protection.close()
