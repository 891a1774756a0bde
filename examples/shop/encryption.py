"""The one switch: what a personal column is, and what stands between the services and the vault.

``SHOP_ENCRYPTION=off`` turns encryption off for the process. Nothing outside this file asks for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import event, inspect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

from examples.shop.plain import Plain, PlainLookup, fill_lookups
from fieldvault import Vault
from fieldvault.sqlalchemy import BlindIndex, Encrypted, protect

ENCRYPTED = os.environ.get("SHOP_ENCRYPTION", "on") != "off"


def personal(type_: TypeEngine[Any] | type[TypeEngine[Any]]) -> TypeEngine[Any]:
    """The type of a column that holds personal data."""
    return Encrypted(type_) if ENCRYPTED else Plain(type_)


def lookup(of: str, normalize: Any) -> TypeEngine[Any]:
    """The type of a column that a personal column is found by."""
    return BlindIndex(of, normalize=normalize) if ENCRYPTED else PlainLookup(of, normalize, partial=False)


def lookup_part(of: str, normalize: Any, *, bits: int) -> TypeEngine[Any]:
    """The type of a column for a part of a personal column; ``bits`` long where it is encrypted."""
    if ENCRYPTED:
        return BlindIndex(of, normalize=normalize, bits=bits)
    return PlainLookup(of, normalize, partial=True)


def personal_columns(model: type[DeclarativeBase]) -> list[str]:
    """The attributes of a model that an erasure empties. A blind index follows what it is of by itself."""
    return [
        key
        for key, column in inspect(model).columns.items()
        if isinstance(column.type, Encrypted | Plain | PlainLookup)
    ]


@dataclass(frozen=True, slots=True)
class Protection:
    """The vault, or nobody: with encryption off there are no scopes and no keys."""

    vault: Vault | None

    @classmethod
    def of(cls, base: type[DeclarativeBase], configuration: str | Mapping[str, Any]) -> Self:
        """Joins the models to the vault of a configuration, which is not read while encryption is off."""
        if ENCRYPTED:
            vault = Vault.open(configuration)
            protect(base, vault)
            return cls(vault)
        for name in ("before_insert", "before_update"):
            if not event.contains(base, name, fill_lookups):
                event.listen(base, name, fill_lookups, propagate=True)
        return cls(None)

    def scope(self, tenant: str) -> AbstractContextManager[object]:
        """The work within is done for this tenant; another tenant's values are refused."""
        return nullcontext() if self.vault is None else self.vault.scope(tenant=tenant)

    async def forget(self, tenant: str, subject: str, *, actor: str, reason: str) -> bool:
        """Destroy a person's keys; whether that makes copies of the database unreadable too."""
        if self.vault is None:
            return False
        await asyncio.to_thread(self.vault.shred, tenant, subject, actor=actor, reason=reason)
        return True

    def close(self) -> None:
        """Close the vault."""
        if self.vault is not None:
            self.vault.close()
