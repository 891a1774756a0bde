"""Rows on their way out: the keys of a page fetched together, and every value checked against its own row.

A result processor sees one value and not its row. So the cursor of a statement that reads encrypted columns
of models that say where their rows' scope is gets a wrapper, which looks at each fetched page before any
processor does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection
from sqlalchemy.engine import Dialect, ExecutionContext
from sqlalchemy.sql.elements import ColumnElement

from fieldvault.envelope import HEADER_SIZE, from_text
from fieldvault.errors import DecryptionError, KeyShredded, ScopeRequired, TenantMismatch
from fieldvault.keys.ring import KeyRing
from fieldvault.sqlalchemy.binding import Binding, name_of
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["check_rows"]

_MEMO = "fieldvault_checks"

Reader = Callable[[Sequence[Any]], Any]
"""From a row as the driver gave it to one of its values as Python has it."""


@dataclass(frozen=True, slots=True)
class _Check:
    """The encrypted columns of one table, or alias, in a statement, and where the rows say whose they are."""

    binding: Binding
    table: str
    columns: tuple[tuple[int, bool], ...]
    names_tenant: bool
    tenant: Reader | None
    subject: Reader | None

    def run(self, rows: Sequence[Sequence[Any]]) -> None:
        """Compare the keys of all values with their rows; keys that are missing are fetched in one batch.

        Raises:
            ScopeRequired: the statement leaves out whose the rows are, and no scope says it.
            TenantMismatch, DecryptionError: a value was moved here from another tenant's or subject's row.
        """
        sealed = [[_blob(row[place], textual) for place, textual in self.columns] for row in rows]
        blobs = [blob for values in sealed for blob in values if blob is not None]
        if not blobs:
            return
        vault = self.binding.vault
        if self.names_tenant and self.tenant is None and vault.ambient.get().tenant is None:
            raise ScopeRequired(
                f"the statement reads encrypted columns of {self.table} without the column that says whose "
                "they are; select that too, or work inside vault.scope(tenant=…)"
            )
        vault.ring.prefetch(blobs=blobs)
        if self.tenant is not None or self.subject is not None:
            self._compare(vault.ring, rows, sealed)

    def _compare(
        self, ring: KeyRing, rows: Sequence[Sequence[Any]], sealed: Sequence[Sequence[bytes | None]]
    ) -> None:
        cached, now = ring.cache.opening.get, ring.clock()
        for row, values in zip(rows, sealed, strict=True):
            tenant = None if self.tenant is None else _name(self.tenant(row))
            subject = None if self.subject is None else _name(self.subject(row))
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
                if self.tenant is not None and key.tenant != tenant:
                    raise TenantMismatch(
                        f"a value in a row of {self.table} belongs to another tenant than the row"
                    )
                if self.subject is not None and key.subject != subject:
                    raise DecryptionError


def _blob(value: Any, textual: bool) -> bytes | None:
    if value.__class__ is bytes or value is None:
        return value
    return from_text(value) if textual else bytes(value)


def _name(value: Any) -> str | None:
    if value.__class__ is str or value is None:
        return value
    return name_of(value, "the scope of a row")


def check_rows(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: ExecutionContext | None,
    executemany: bool,
) -> None:
    """Listener of ``after_cursor_execute``: wraps the cursor of a statement whose rows are to be checked."""
    compiled = getattr(context, "compiled", None)
    if compiled is None or not getattr(compiled, "_result_columns", None):
        return
    checks = compiled.__dict__.get(_MEMO)
    if checks is None:
        if cursor.description is None:
            return
        # Kept with the compiled statement, which SQLAlchemy caches, so that it is worked out once.
        checks = compiled.__dict__[_MEMO] = tuple(
            _checks_of(compiled, connection.dialect, cursor.description)
        )
    if checks:
        context.cursor = _CheckingCursor(cursor, checks)  # type: ignore[union-attr]


def _checks_of(compiled: Any, dialect: Dialect, description: Sequence[Any]) -> Iterable[_Check]:
    entries = compiled._result_columns
    ordered = compiled._ordered_columns and len(entries) == len(description)
    groups: dict[int, list[tuple[int, Encrypted]]] = {}
    for place, entry in enumerate(entries):
        if isinstance(entry.type, Encrypted) and entry.type.binding is not None:
            groups.setdefault(id(_source(entry)), []).append((place, entry.type))
    for source, members in groups.items():
        for table in {type_.table for _, type_ in members}:
            own = [(place, type_) for place, type_ in members if type_.table is table]
            binding = own[0][1].binding
            scope = None if binding is None or table is None else binding.scopes.get(table)
            if scope is None or binding is None or table is None:
                continue

            def reader(key: str | None, source: int = source) -> Reader | None:
                for place, entry in enumerate(entries if ordered else ()):
                    column = _column(entry)
                    if (
                        key is not None
                        and column is not None
                        and column.key == key
                        and id(_source(entry)) == source
                    ):
                        return _reader(place, column, dialect, description[place][1])
                return None

            yield _Check(
                binding=binding,
                table=table.name,
                columns=tuple((place, type_.storage == "text") for place, type_ in own) if ordered else (),
                names_tenant=scope.names_tenant,
                tenant=reader(scope.tenant),
                subject=reader(scope.subject),
            )


def _column(entry: Any) -> Any:
    return next(
        (each for each in entry.objects if isinstance(each, ColumnElement) and hasattr(each, "table")), None
    )


def _source(entry: Any) -> Any:
    return getattr(_column(entry), "table", None)


def _reader(place: int, column: Column[Any], dialect: Dialect, coltype: object) -> Reader:
    process = column.type.dialect_impl(dialect).result_processor(dialect, coltype)
    if process is None:
        return lambda row: row[place]
    return lambda row: process(row[place])


class _CheckingCursor:
    """A DBAPI cursor (PEP 249) that checks the rows it hands out; everything else is the cursor's own."""

    def __init__(self, cursor: Any, checks: tuple[_Check, ...]) -> None:
        self._cursor = cursor
        self._checks = checks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Any:
        return iter(self.fetchall())

    def fetchone(self) -> Any:
        row = self._cursor.fetchone()
        if row is not None:
            self._check([row])
        return row

    def fetchmany(self, *size: int) -> Any:
        return self._check(self._cursor.fetchmany(*size))

    def fetchall(self) -> Any:
        return self._check(self._cursor.fetchall())

    def _check(self, rows: Any) -> Any:
        for check in self._checks:
            check.run(rows)
        return rows
