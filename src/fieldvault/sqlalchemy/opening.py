"""Cells of encrypted columns on their way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.engine import Dialect

from fieldvault.batches import open_many
from fieldvault.envelope import from_text
from fieldvault.erased import RAISE
from fieldvault.errors import KeyShredded, MalformedCiphertext, UnsupportedQuery
from fieldvault.sqlalchemy.binding import RowScope
from fieldvault.sqlalchemy.bound import BoundColumn

__all__ = ["OpenPage", "Prefetch", "Said", "as_blob", "page_opener", "result_processor"]

Prefetch = Callable[[], None]
"""Fetches the keys of everything that a page holds, for a page opener that misses one."""

Said = Sequence[str] | None
"""What the rows of a page say of their tenant, or of their subject; ``None`` where they say nothing."""

OpenPage = Callable[[Sequence[Any], Said, Said, Sequence[bytes] | None, Prefetch | None], list[Any]]
"""``(cells, tenants, subjects, rows, prefetch)`` to the values, each in a tuple of one."""


def page_opener(column: BoundColumn, dialect: Dialect) -> OpenPage:
    """A function that opens a page of one column's cells, each into a tuple for the result processor.

    Rows are read this way: it costs less than value after value, and it knows what the rows say.
    """
    out = column.coercion(dialect).out

    def open_page(
        cells: Sequence[Any],
        tenants: Said,
        subjects: Said,
        rows: Sequence[bytes] | None,
        prefetch: Prefetch | None,
    ) -> list[Any]:
        if column.bind_row and rows is None:
            raise UnsupportedQuery(
                f"{column.field} binds values to their rows, and the statement reads it without the primary "
                f"key of {column.table.name}; select that too"
            )
        tenant, subject = _reading_scope(column, column.binding.scopes.get(column.table))
        opened = open_many(
            column.binding.vault.ring,
            [None if cell is None else as_blob(cell, True) for cell in cells] if column.textual else cells,
            column.field,
            tenant,
            subject,
            tenants=tenants,
            subjects=subjects,
            rows=rows if column.bind_row else None,
            erased=partial(_stand_in, column),
            prefetch=prefetch,
        )
        if out is not None or _Erased in map(type, opened):
            opened = [_finished(value, out) for value in opened]
        return list(zip(opened, strict=False))

    return open_page


def result_processor(column: BoundColumn, dialect: Dialect) -> Callable[[Any], Any]:
    """Opens one value, or unpacks what ``page_opener`` has opened with its row at hand."""
    open_page = page_opener(column, dialect)

    def process(cell: Any) -> Any:
        if cell.__class__ is tuple:
            # No driver gives a tuple for a cell of bytes or text: a page has been opened already.
            return cell[0]
        return None if cell is None else open_page([cell], None, None, None, None)[0][0]

    return process


def _reading_scope(column: BoundColumn, scope: RowScope | None) -> tuple[str | None, str | None]:
    """The tenant and the subject that a value has to belong to; ``None`` where its row says it, or nobody."""
    ambient = column.binding.vault.ambient.get()
    tenant, subject = ambient.tenant, ambient.subject
    if scope is not None and scope.subject is None:
        subject = None
    if tenant is None and (scope is None or scope.tenant is None):
        tenant = column.binding.ambient_tenant(column.table.name)
    return tenant, subject


@dataclass(frozen=True, slots=True)
class _Erased:
    """Stands for a value whose key was shredded, until the column's own stand-in takes its place."""

    stand_in: Any


def _stand_in(column: BoundColumn, shredded: KeyShredded) -> _Erased:
    if column.erased is RAISE:
        raise shredded
    return _Erased(column.erased)


def _finished(value: Any, out: Callable[[Any], Any] | None) -> Any:
    """What the application gets: a value in its column's own form, or what stands in for it."""
    if value.__class__ is _Erased:
        # Rows that share one dictionary would share what the application then writes into it.
        return deepcopy(value.stand_in) if isinstance(value.stand_in, dict | list) else value.stand_in
    return value if value is None or out is None else out(value)


def as_blob(cell: Any, textual: bool) -> bytes:
    """The ciphertext in a cell.

    Raises:
        MalformedCiphertext: something else is there, such as plaintext from before the column was encrypted.
    """
    if cell.__class__ is bytes and not textual:
        return cell
    if textual and isinstance(cell, str):
        return from_text(cell)
    if not textual and isinstance(cell, bytearray | memoryview):
        return bytes(cell)
    form = "text" if textual else "binary"
    raise MalformedCiphertext(f"what is stored is {type(cell).__name__} and no ciphertext in {form} form")
