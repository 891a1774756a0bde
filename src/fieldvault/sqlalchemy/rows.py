"""``Rows``: the rows of one table on their way in, each sealed under its own scope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from types import NoneType
from typing import Any

from sqlalchemy import Column, Table, Update
from sqlalchemy.engine import Dialect

from fieldvault.errors import ScopeRequired, UnsupportedQuery
from fieldvault.keys.records import KeySlot
from fieldvault.sqlalchemy.binding import Binding, Owner, RowScope, binding_of, canonical, stored_name
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.columns import default_of
from fieldvault.sqlalchemy.deterministic import is_deterministic
from fieldvault.sqlalchemy.exactly import exactly
from fieldvault.sqlalchemy.identity import binds_rows, key_of, named_in, row_bound
from fieldvault.sqlalchemy.indexing import Filler
from fieldvault.sqlalchemy.waiting import fetch_index_keys, fetch_slots

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
        self._bound = bool(row_bound(self.table))
        self._in_rows = any(column.table is self.table for column in self._named)
        self._defaulted = [
            column
            for column in (*self._named, *(key_of(self.table) if self._bound else ()), *columns)
            if column.table is self.table and column.default is not None
        ]
        self.fillers = [Filler(index, dialect) for index in indexes_of(self.table)]
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
        self.fetch_keys([owners] if isinstance(owners, tuple) else owners)
        for column, key, values in zip(self._columns, self._keys, columns, strict=True):
            bound = self._identities(rows, values) if binds_rows(column) else None
            cells = column.type.column_sealer(self._dialect)(values, owners, bound)  # type: ignore[attr-defined]
            for put, value, cell in zip(into, values, cells, strict=True):
                if value is not None:
                    put[key] = cell
        each = repeat(owners) if isinstance(owners, tuple) else owners
        for filler in self.fillers:
            for row, put, (tenant, _) in zip(rows, into, each, strict=False):
                filler.fill(row, tenant, put, whole=True)

    def fetch_keys(self, owners: Iterable[Owner]) -> None:
        """Have the owners' keys at hand before anything is sealed, in one batch, and beside an event loop.

        Raises:
            KeyShredded, KeySuspended, KMSError, KeyStoreError: an index key cannot be had.
        """
        vault = self._binding.vault
        known = [owner for owner in dict.fromkeys(owners) if owner != _NOBODY]
        by_index_key = [is_deterministic(column.type) for column in self._columns]
        if not all(by_index_key):
            fetch_slots(vault, (KeySlot(*owner) for owner in known))
        if self.fillers or any(by_index_key):
            fetch_index_keys(vault, (tenant for tenant, _ in known))

    @property
    def deciding(self) -> Iterable[str]:
        """The columns of the table on which the keys of a row's values depend."""
        yield from (str(column.key) for column in self._named if column.table is self.table)
        yield from (str(column.key) for column in (key_of(self.table) if self._bound else ()))

    def owner_named_in(self, row: Row) -> Owner | None:
        """The owner, if the row names tenant or subject; what it leaves out is the ambient scope's."""
        named: dict[str, Any] = {}
        for column in self._named:
            if column.table is self.table:
                value = row.get(column.key)
                if value is not None:
                    named[str(column.key)] = value
        scope = self.scope
        if not named or scope is None:
            return None
        ambient = self._binding.vault.ambient.get()
        for part, name in ((scope.tenant, ambient.tenant), (scope.subject, ambient.subject)):
            if part is not None and name is not None:
                named.setdefault(str(part.key), name)
        if any(column.table is self.table and str(column.key) not in named for column in self._named):
            # Half a name is none: the ambient scope says what is missing.
            return None
        return self._owner({**row, **named})

    def check_move(self, values: Row) -> None:
        """Refuse an update that sets whose its rows are, and leaves encrypted values to the former owner.

        The same for a primary key, and values that are bound to the former one.

        Raises:
            UnsupportedQuery: it does.
        """
        moving = [column.key for column in self._named if column.table is self.table and column.key in values]
        staying = [key for key in self._keys if key not in values]
        if self._bound and not moving:
            moving = [column.key for column in key_of(self.table) if column.key in values]
            staying = [str(column.key) for column in row_bound(self.table) if column.key not in values]
        if moving and staying:
            raise UnsupportedQuery(
                f"the statement sets {', '.join(moving)} of {self.table.name}, which chooses their keys, "
                f"and not {', '.join(staying)}; change the loaded objects and flush them"
            )

    def within_scope(self, statement: Update, values: Row) -> Update:
        """An update of the ambient scope's rows only, since what it writes was sealed for that scope.

        Unless ``values`` say whose the rows are.
        """
        scope, ambient = self.scope, self._binding.vault.ambient.get()
        if scope is None:
            return statement
        for column, name in ((scope.tenant, ambient.tenant), (scope.subject, ambient.subject)):
            if column is None or name is None or column.table is not self.table:
                continue
            if column.key not in values:
                there: Any = statement.table
                statement = statement.where(exactly(there.c[column.key], stored_name(column, name)))
        return statement

    def index(self, row: Row, owner: Owner | None, put: dict[str, Any]) -> None:
        """Put the tokens of a row of an update, whose other columns are in the database, into ``put``.

        They are the owner's, or of whom the row's carriers name, or the ambient scope's.
        """
        values = [row[key] for key in self._keys if row.get(key) is not None]
        if owner is None:
            owner = next(((each.tenant, None) for each in values if each.__class__ is Carrier), None)
        if owner is None and values:
            owner = self._binding.ambient_scope(self.scope, self.table.name)
        for filler in self.fillers:
            filler.fill(row, "" if owner is None else owner[0], put, whole=False)

    def _identities(self, rows: Sequence[Row], values: Sequence[Any]) -> Sequence[bytes]:
        return [_identity(self.table, *each) for each in zip(rows, values, strict=True)]

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
        ambient = self._binding.vault.ambient.get()
        tenant = self._part(scope.tenant, row, ambient.tenant)
        subject = self._part(scope.subject, row, ambient.subject)
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

    def _part(self, column: Column[Any] | None, row: Row, ambient: str | None) -> Any:
        """What a row says of its tenant or subject; in joined inheritance another table's row may have it."""
        if column is None:
            return None
        if column.table is self.table:
            return row.get(column.key)
        if ambient is None:
            raise ScopeRequired(
                f"the rows of {self.table.name} leave it to {column.table.name} to say whose they are: "
                "work inside vault.scope(…), or add objects to a session"
            )
        return ambient


def _identity(table: Table, row: Row, value: Any) -> bytes:
    if value is None:
        return b""
    if value.__class__ is Carrier and value.row is not None:
        return bytes(value.row)
    return named_in(table, row)


def _values(rows: Sequence[Row], key: str) -> list[Any]:
    try:
        return list(map(itemgetter(key), rows))
    except KeyError:
        return [row.get(key) for row in rows]
