"""Rows on their way out: the keys of a page fetched together, and every value checked against its own row.

A result processor sees one value and not its row. So the cursor of a statement that reads encrypted columns
gets a wrapper, which looks at each fetched page before any processor does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import Dialect, ExecutionContext
from sqlalchemy.orm import InstanceState

from fieldvault.errors import FieldVaultError, MalformedCiphertext, ScopeRequired
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import name_of
from fieldvault.sqlalchemy.identity import identities
from fieldvault.sqlalchemy.locating import OF_ONE_VALUE, first_refused, located
from fieldvault.sqlalchemy.opening import Prefetch, as_blob
from fieldvault.sqlalchemy.origins import Reader, Reading, places_of, readings_of
from fieldvault.sqlalchemy.queries import refuse_questions
from fieldvault.sqlalchemy.recheck import Condition, conditions_of
from fieldvault.sqlalchemy.refreshing import key_readers, refreshed, scope_of
from fieldvault.sqlalchemy.waiting import fetch_keys_of
from fieldvault.vault import Vault

__all__ = ["check_rows"]

_MEMO = "fieldvault_readings"
_LARGEST_PAGE = 1000

_NOBODY = ""
"""A name that no tenant and no subject has: what a row says that says NULL."""


def check_rows(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: ExecutionContext | None,
    executemany: bool,
) -> None:
    """Listener of ``after_cursor_execute``: has the rows that a statement reads checked on their way out."""
    compiled = getattr(context, "compiled", None)
    if compiled is None or cursor.description is None or not getattr(compiled, "_result_columns", None):
        return
    # Kept with the compiled statement, which SQLAlchemy caches, so that it is worked out once; and again if
    # models have been learned of since.
    readings, versions = compiled.__dict__.get(_MEMO, (None, ()))
    if readings is None or versions != tuple(each.binding.version for each in readings):
        readings = tuple(readings_of(compiled, connection.dialect, cursor.description))
        compiled.__dict__[_MEMO] = readings, tuple(each.binding.version for each in readings)
    if readings:
        rechecks = refuse_questions(context)
        conditions = (
            conditions_of(rechecks, places_of(compiled, cursor.description), context) if rechecks else []
        )
        state = refreshed(context)
        checks = [_Check(reading, state, connection) for reading in readings]
        _have_checked(connection, context, cursor, checks, conditions)


def _have_checked(
    connection: Connection,
    context: Any,
    cursor: Any,
    checks: Sequence[_Check],
    conditions: Sequence[Condition],
) -> None:
    if context.engine._should_log_debug():
        context.engine = _EngineWithoutRowLog(context.engine)
    if getattr(context, "_insertmanyvalues_rows", None) is not None:
        # The rows of a bulk INSERT … RETURNING are fetched past the context's cursor, batch by batch.
        context.fetchall_for_returning = lambda cursor: _CheckingCursor(
            cursor, checks, conditions, connection.dialect
        ).fetchall()
    else:
        context.cursor = checking = _CheckingCursor(cursor, checks, conditions, connection.dialect)
        if connection.dialect.is_async and not context._is_server_side:
            # Such rows are in memory already, and may be fetched where nothing can wait for keys any more.
            checking.load()


class _Check:
    """What one execution of a statement reads of one table's encrypted columns, and whose it has to be."""

    def __init__(
        self, reading: Reading, refreshed: InstanceState[Any] | None, connection: Connection
    ) -> None:
        self._reading = reading
        self._tenant, self._subject, self._key = reading.tenant, reading.subject, reading.key
        if refreshed is not None and reading.direct and self._key is None:
            self._key = key_readers(refreshed, reading.table)
        if refreshed is not None and reading.direct:
            scope = getattr(refreshed.class_, "__vault__", None)
            if isinstance(scope, KeyScope):
                said = scope_of(refreshed, scope, connection, self._needs_tenant())
                self._tenant, self._subject = self._tenant or said[0], self._subject or said[1]

    def _needs_tenant(self) -> bool:
        """Whether rows have a tenant that neither the statement nor the ambient scope names."""
        scope = self._reading.scope
        names_tenant = scope is not None and scope.tenant is not None
        return names_tenant and self._tenant is None and self.vault.ambient.get().tenant is None

    def open(self, cells: list[Any], prefetch: Prefetch) -> None:
        """Put what a page's encrypted columns hold in place of their ``cells``, checked against its row.

        Raises:
            ScopeRequired: the statement leaves out whose the rows are, and no scope says it.
            TenantMismatch, DecryptionError: a value was moved here from another tenant's or subject's row.
            UnsupportedQuery: values are bound to their rows, and the statement leaves out the primary key.
            MalformedCiphertext: what is there is no ciphertext.
            KeyNotFound, KeyShredded, KeySuspended, KMSError, KeyStoreError: a key cannot be had.
        """
        reading = self._reading
        full = [
            (place, open_page)
            for place, open_page in reading.columns
            if cells[place].count(None) < len(cells[place])
        ]
        if not full:
            return
        if self._needs_tenant():
            raise ScopeRequired(
                f"the statement reads encrypted columns of {reading.table.name} without the column that says "
                "whose they are; select that too, or work inside vault.scope(tenant=…)"
            )
        tenants, subjects = _names(self._tenant, cells), _names(self._subject, cells)
        rows = None if self._key is None else identities([read(cells) for read in self._key])
        for place, open_page in full:
            try:
                cells[place] = open_page(cells[place], tenants, subjects, rows, prefetch)
            except OF_ONE_VALUE as error:
                met: FieldVaultError = error
            else:
                continue
            refused = first_refused(open_page, cells[place], tenants, subjects, rows)
            names = reading.names if self._key is None else self._key
            raise located(met, reading.types[place], reading.table, names, cells, refused)

    @property
    def vault(self) -> Vault:
        """The vault of the table."""
        return self._reading.binding.vault

    def sealed(self, cells: Sequence[Any]) -> Iterable[bytes]:
        """The ciphertexts in the encrypted columns of a page."""
        found = (cell for place, _ in self._reading.columns for cell in cells[place] if cell is not None)
        return filter(None, map(_blob_in, found))


def _names(read: Reader | None, cells: Sequence[Any]) -> Sequence[str] | None:
    """What the rows of a page say of their tenant or subject; ``None`` where they say nothing."""
    if read is None:
        return None
    said = read(cells)
    return said if set(map(type, said)) == {str} else list(map(_name, said))


def _name(value: Any) -> str:
    if value.__class__ is str:
        return value
    return _NOBODY if value is None else name_of(value, "the scope of a row")


def _blob_in(cell: Any) -> bytes | None:
    try:
        return as_blob(cell, isinstance(cell, str))
    except MalformedCiphertext:
        # Told where it is opened, with its place.
        return None


class _EngineWithoutRowLog:
    """A statement's engine, which at debug level would log its rows with their values opened."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _should_log_debug(self) -> bool:
        return False


class _CheckingCursor:
    """A DBAPI cursor (PEP 249) that checks the rows it hands out; everything else is the cursor's own."""

    def __init__(
        self, cursor: Any, checks: Sequence[_Check], conditions: Sequence[Condition], dialect: Dialect
    ) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self._checks = checks
        self._conditions = conditions
        self._ahead: deque[Any] = deque()
        self._page = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def load(self) -> None:
        """Fetch all rows and open them now."""
        self._ahead.extend(self._checked(self._cursor.fetchall()))

    def fetchone(self) -> Any:
        """The next row; rows after the first are fetched ahead, so that their keys come in batches."""
        if not self._ahead:
            self._ahead.extend(self._fetched(self._page))
            self._page = min(8 * self._page, _LARGEST_PAGE)
        return self._ahead.popleft() if self._ahead else None

    def fetchmany(self, *size: int) -> Any:
        """The next rows, those that were fetched ahead first."""
        wanted = size[0] if size else self._cursor.arraysize
        rows = [self._ahead.popleft() for _ in range(min(wanted, len(self._ahead)))]
        if len(rows) < wanted:
            rows.extend(self._fetched(wanted - len(rows)))
        return rows

    def fetchall(self) -> Any:
        """All rows that are left."""
        rows = [*self._ahead, *self._checked(self._cursor.fetchall())]
        self._ahead.clear()
        return rows

    def _fetched(self, size: int) -> list[Any]:
        """At most so many rows; none only at the end, though all of a page may have been left out."""
        while rows := self._cursor.fetchmany(size):
            checked = self._checked(rows)
            if checked:
                return checked
        return []

    def _checked(self, rows: Any) -> list[Any]:
        opened: list[Any] = []
        for start in range(0, len(rows), _LARGEST_PAGE):
            page = rows[start : start + _LARGEST_PAGE]
            cells: list[Any] = list(zip(*page, strict=True))
            prefetch = partial(self._prefetch, tuple(cells))
            if self._dialect.is_async:
                prefetch()
            for check in self._checks:
                check.open(cells, prefetch)
            found: Iterable[Any] = zip(*cells, strict=True)
            for place, holds in self._conditions:
                found = [row for row in found if row[place] is not None and holds(row[place][0])]
            opened.extend(found)
        return opened

    def _prefetch(self, cells: Sequence[Any]) -> None:
        """Have the keys of all encrypted columns of a page, in one batch for each vault."""
        wanted: dict[Vault, list[bytes]] = {}
        for check in self._checks:
            wanted.setdefault(check.vault, []).extend(check.sealed(cells))
        for vault, blobs in wanted.items():
            fetch_keys_of(vault, blobs)
