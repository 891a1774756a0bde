"""``BoundColumn``: an encrypted column of a table, with all that sealing and opening its cells takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from fieldvault.sqlalchemy.binding import Binding, Owner
from fieldvault.sqlalchemy.coercion import Coercion, coercion_of
from fieldvault.suites import Suite, suite_named
from fieldvault.vault import Vault

__all__ = ["BoundColumn"]


@dataclass(frozen=True, slots=True, eq=False)
class BoundColumn:
    """What ``Encrypted`` said of a column, and where the column turned out to be.

    It holds the binding and looks the vault up at each use, so binding again reaches cached statements.
    """

    binding: Binding
    table: Table
    key: str
    field: str
    type_: TypeEngine[Any]
    suite: str | None
    padding: int | None
    textual: bool
    bind_row: bool
    deterministic: bool
    erased: Any

    def coercion(self, dialect: Dialect) -> Coercion:
        """From the column's values to what is sealed, and back."""
        return coercion_of(self.type_, self.field, dialect)

    def suite_in(self, vault: Vault) -> Suite:
        """The column's cipher suite, or the vault's own choice."""
        return vault.suite if self.suite is None else suite_named(self.suite)

    def ambient_owner(self) -> Owner:
        """Tenant and subject of a value whose row is not known: the ambient ones.

        Raises:
            ScopeRequired: the model takes them from its rows, and no scope names them.
        """
        return self.binding.ambient_scope(self.binding.scopes.get(self.table), self.table.name)
