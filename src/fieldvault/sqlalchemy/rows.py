"""``Rows``: the rows of one table on their way in, each sealed under its own scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from types import NoneType
from typing import Any

from sqlalchemy import Column
from sqlalchemy.engine import Dialect

from fieldvault.keys.records import KeySlot
from fieldvault.sqlalchemy.binding import Binding, Owner, RowScope, binding_of, canonical
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.columns import default_of

__all__ = ["Rows"]

Row = Mapping[str, Any]

_NOBODY: Owner = ("", None)
"""The owner of a row that has nothing to seal."""


class Rows:
    """Seals what rows of one table hold for its encrypted columns, a column at a time."""

    def __init__(self, columns: Sequence[Column[Any]], dialect: Dialect) -> None:
        # Not the statement's own table: the ORM sends a copy with annotations.
        self.table = columns[0].table
        self._binding: Binding = binding_of(self.table.metadata)
        self.scope: RowScope | None = self._binding.scopes.get(self.table)
        self._dialect = dialect
        self._columns = columns
        self._keys = tuple(str(column.key) for column in columns)
        named = () if self.scope is None else (self.scope.tenant, self.scope.subject)
        # Those on which the scope of a row depends.
        self._named = tuple(column for column in named if column is not None)
        self._in_rows = bool(self._named) and all(column.table is self.table for column in self._named)
        self._defaulted = [
            column
            for column in (*self._named, *columns)
            if column.table is self.table and column.default is not None
        ]
        # The last row's tenant and subject as they stood there, and as names.
        self._last: tuple[Any, Any, Owner] = (None, None, _NOBODY)

    def seal(self, rows: Sequence[Row], into: Sequence[dict[str, Any]]) -> None:
        """Put each row's cells, and defaults that have to be known for them, into its dictionary.

        The keys that are not at hand are fetched, or made, in one batch.

        Raises:
            ScopeRequired, TenantMismatch: a row's values have no scope, or another tenant's than the ambient
                one.
            UnsupportedValue, KeyShredded, KeySuspended, KMSError, KeyStoreError: as for one value.
        """
        if self._defaulted:
            rows = [self._with_defaults(row, put) for row, put in zip(rows, into, strict=True)]
        columns = [_values(rows, key) for key in self._keys]
        owners = self._owners(rows, columns)
        if not isinstance(owners, tuple):
            self._prefetch(owners)
        for column, key, values in zip(self._columns, self._keys, columns, strict=True):
            cells = column.type.column_sealer(self._dialect)(values, owners)  # type: ignore[attr-defined]
            for put, value, cell in zip(into, values, cells, strict=True):
                if value is not None:
                    put[key] = cell

    def owner_named_in(self, row: Row) -> Owner | None:
        """The owner, if the row names tenant or subject; what it leaves out is the ambient scope's."""
        scope = self.scope
        if scope is None or not any(
            column.table is self.table and column.key in row for column in self._named
        ):
            return None
        ambient = self._binding.vault.ambient.get()
        complete = dict(row)
        for column, name in ((scope.tenant, ambient.tenant), (scope.subject, ambient.subject)):
            if column is not None and complete.get(column.key) is None and name is not None:
                complete[column.key] = name
        return self._owner(complete)

    def _with_defaults(self, row: Row, put: dict[str, Any]) -> Row:
        """The row with what Python would put into it; that is noted in ``put`` too."""
        complete = row
        for column in self._defaulted:
            if column.key not in complete:
                made = default_of(column, complete)
                if made is not None or column.key in self._keys:
                    put[column.key] = made
                    complete = {**complete, column.key: made}
        return complete

    def _owners(self, rows: Sequence[Row], columns: Sequence[Sequence[Any]]) -> Sequence[Owner] | Owner:
        """Whose each row is, or all are; nobody's where there is nothing to seal."""
        kinds = set().union(*(map(type, values) for values in columns)) - {NoneType}
        if not kinds:
            return _NOBODY
        if Carrier not in kinds and not self._in_rows:
            return self._binding.ambient_scope(self.scope, self.table.name)
        return [self._owner_of(row, values) for row, *values in zip(rows, *columns, strict=True)]

    def _owner_of(self, row: Row, values: Sequence[Any]) -> Owner:
        for value in values:
            if value.__class__ is Carrier:
                return value.tenant, value.subject
        for value in values:
            if value is not None:
                return self._owner(row)
        return _NOBODY

    def _owner(self, row: Row) -> Owner:
        scope, name = self.scope, self.table.name
        if scope is None or not self._in_rows:
            return self._binding.ambient_scope(scope, name)
        tenant = None if scope.tenant is None else row.get(scope.tenant.key)
        subject = None if scope.subject is None else row.get(scope.subject.key)
        last_tenant, last_subject, owner = self._last
        if owner is _NOBODY or tenant is not last_tenant or subject is not last_subject:
            owner = self._binding.scope_of_row(
                scope,
                None if scope.tenant is None else canonical(scope.tenant, tenant),
                None if scope.subject is None else canonical(scope.subject, subject),
                name,
            )
            # Rows of one tenant mostly come together.
            self._last = tenant, subject, owner
        return owner

    def _prefetch(self, owners: Sequence[Owner]) -> None:
        ring = self._binding.vault.ring
        slots = (KeySlot(*owner) for owner in dict.fromkeys(owners) if owner is not _NOBODY)
        cold = [slot for slot in slots if ring.sealing_may_wait(slot)]
        if len(cold) > 1:
            ring.prefetch(slots=cold)


def _values(rows: Sequence[Row], key: str) -> list[Any]:
    try:
        return list(map(itemgetter(key), rows))
    except KeyError:
        return [row.get(key) for row in rows]
