"""Rows on their way out: the keys of a page fetched together, and every value checked against its own row.

A result processor sees one value and not its row. So the cursor of a statement that reads encrypted columns
gets a wrapper, which looks at each fetched page before any processor does.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.orm import InstanceState

from fieldvault.envelope import HEADER_SIZE, from_text
from fieldvault.errors import DecryptionError, KeyShredded, MalformedCiphertext, ScopeRequired, TenantMismatch
from fieldvault.keys.ring import KeyRing
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import name_of
from fieldvault.sqlalchemy.origins import Reader, Reading, readings_of

__all__ = ["check_rows"]

_MEMO = "fieldvault_readings"
_LARGEST_PAGE = 1000

Rows = Sequence[Sequence[Any]]


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
    readings = compiled.__dict__.get(_MEMO)
    if readings is None:
        # Kept with the compiled statement, which SQLAlchemy caches, so that it is worked out once.
        readings = compiled.__dict__[_MEMO] = tuple(
            readings_of(compiled, connection.dialect, cursor.description)
        )
    if readings:
        _have_checked(context, cursor, [_Check(reading, _refreshed(context)) for reading in readings])


def _have_checked(context: Any, cursor: Any, checks: Sequence[_Check]) -> None:
    if context.engine._should_log_debug():
        context.engine = _EngineWithoutRowLog(context.engine)
    if getattr(context, "_insertmanyvalues_rows", None) is not None:
        # The rows of a bulk INSERT … RETURNING are fetched past the context's cursor, batch by batch.
        context.fetchall_for_returning = lambda cursor: _CheckingCursor(cursor, checks).fetchall()
    else:
        context.cursor = _CheckingCursor(cursor, checks)


class _Check:
    """What one execution of a statement reads of one table's encrypted columns, and whose it has to be."""

    def __init__(self, reading: Reading, refreshed: InstanceState[Any] | None) -> None:
        self._reading = reading
        self._tenant, self._subject = reading.tenant, reading.subject
        if refreshed is not None and reading.direct:
            scope = getattr(refreshed.class_, "__vault__", None)
            if isinstance(scope, KeyScope):
                self._tenant = self._tenant or _known(refreshed, scope.tenant)
                self._subject = self._subject or _known(refreshed, scope.subject)

    def run(self, rows: Rows) -> None:
        """Compare the keys of all values with their rows; keys that are missing are fetched in one batch.

        Raises:
            ScopeRequired: the statement leaves out whose the rows are, and no scope says it.
            TenantMismatch, DecryptionError: a value was moved here from another tenant's or subject's row.
            MalformedCiphertext: what is there is no ciphertext.
        """
        reading = self._reading
        sealed = [[_blob(row[place], textual) for place, textual in reading.columns] for row in rows]
        blobs = [blob for values in sealed for blob in values if blob is not None]
        if not blobs:
            return
        vault = reading.binding.vault
        names_tenant = reading.scope is not None and reading.scope.tenant is not None
        if names_tenant and self._tenant is None and vault.ambient.get().tenant is None:
            raise ScopeRequired(
                f"the statement reads encrypted columns of {reading.table.name} without the column that says "
                "whose they are; select that too, or work inside vault.scope(tenant=…)"
            )
        vault.ring.prefetch(blobs=blobs)
        if self._tenant is not None or self._subject is not None:
            self._compare(vault.ring, rows, sealed)

    def _compare(self, ring: KeyRing, rows: Rows, sealed: Sequence[Sequence[bytes | None]]) -> None:
        cached, now = ring.cache.opening.get, ring.clock()
        read_tenant, read_subject = self._tenant, self._subject
        for row, values in zip(rows, sealed, strict=True):
            tenant = None if read_tenant is None else _name(read_tenant(row))
            subject = None if read_subject is None else _name(read_subject(row))
            for blob in values:
                if blob is None:
                    continue
                key = cached(blob[:HEADER_SIZE])
                if key is None or now >= key.fresh_until:
                    try:
                        key = ring.for_opening(blob)
                    except KeyShredded:
                        # Nothing will be read from it; what stands in its place is the column's choice.
                        continue
                if read_tenant is not None and key.tenant != tenant:
                    raise TenantMismatch(
                        f"a value in a row of {self._reading.table.name} belongs to another tenant than it"
                    )
                if read_subject is not None and key.subject != subject:
                    raise DecryptionError


def _refreshed(context: Any) -> InstanceState[Any] | None:
    """The object whose own attributes are loaded: refreshed, or a deferred or expired one of them."""
    options = context.execution_options.get("_sa_orm_load_options")
    state: InstanceState[Any] | None = getattr(options, "_refresh_state", None)
    return state


def _known(state: InstanceState[Any], name: str | None) -> Reader | None:
    """Reads what an object knows of its own scope, for a statement that does not select it."""
    # As the row in the database has it: a change that waits for its flush is not there yet.
    value = None if name is None else state.committed_state.get(name, state.dict.get(name))
    return (lambda _: value) if isinstance(value, str | int | uuid.UUID) else None


def _blob(value: Any, textual: bool) -> bytes | None:
    if value is None or (value.__class__ is bytes and not textual):
        return value
    if textual and isinstance(value, str):
        return from_text(value)
    if not textual and isinstance(value, bytearray | memoryview):
        return bytes(value)
    form = "text" if textual else "binary"
    raise MalformedCiphertext(f"what is stored is {type(value).__name__} and no ciphertext in {form} form")


def _name(value: Any) -> str | None:
    if value.__class__ is str or value is None:
        return value
    return name_of(value, "the scope of a row")


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

    def __init__(self, cursor: Any, checks: Sequence[_Check]) -> None:
        self._cursor = cursor
        self._checks = checks
        self._ahead: deque[Any] = deque()
        self._page = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        """The next row; rows after the first are fetched ahead, so that their keys come in batches."""
        if not self._ahead:
            self._ahead.extend(self._checked(self._cursor.fetchmany(self._page)))
            self._page = min(8 * self._page, _LARGEST_PAGE)
        return self._ahead.popleft() if self._ahead else None

    def fetchmany(self, *size: int) -> Any:
        """The next rows, those that were fetched ahead first."""
        wanted = size[0] if size else self._cursor.arraysize
        rows = [self._ahead.popleft() for _ in range(min(wanted, len(self._ahead)))]
        if len(rows) < wanted:
            rows.extend(self._checked(self._cursor.fetchmany(wanted - len(rows))))
        return rows

    def fetchall(self) -> Any:
        """All rows that are left."""
        rows = [*self._ahead, *self._checked(self._cursor.fetchall())]
        self._ahead.clear()
        return rows

    def _checked(self, rows: Any) -> Any:
        for check in self._checks:
            check.run(rows)
        return rows
