"""Which value of a page an error is about: told in a note of the error, and never in its message."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from sqlalchemy import Table

from fieldvault.errors import (
    DecryptionError,
    FieldVaultError,
    MalformedCiphertext,
    TenantMismatch,
    UnsupportedValue,
)
from fieldvault.sqlalchemy.identity import key_of
from fieldvault.sqlalchemy.opening import OpenPage, Said
from fieldvault.sqlalchemy.origins import Reader
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["OF_ONE_VALUE", "first_refused", "located"]

OF_ONE_VALUE = (DecryptionError, MalformedCiphertext, TenantMismatch, UnsupportedValue)
"""Errors about what one cell holds. The note is the same whatever the cause, as the message is."""


def first_refused(
    open_page: OpenPage, cells: Sequence[Any], tenants: Said, subjects: Said, rows: Sequence[bytes] | None
) -> int | None:
    """The place in a page of the first value that is refused, each opened by itself."""
    for place, cell in enumerate(cells):
        part = slice(place, place + 1)
        try:
            if cell is not None:
                open_page(
                    cells[part],
                    None if tenants is None else tenants[part],
                    None if subjects is None else subjects[part],
                    None if rows is None else rows[part],
                    None,
                )
        except OF_ONE_VALUE:
            return place
        except FieldVaultError:
            # An outage has come between: nobody can say any more.
            return None
    return None


def located(
    error: FieldVaultError,
    type_: Encrypted,
    table: Table,
    names: Sequence[Reader] | None,
    cells: Sequence[Sequence[Any]],
    place: int | None,
) -> FieldVaultError:
    """The error with a note of the column, and of the primary key of the row at a place of the page."""
    # A copy: one error of a key may be on its way to several threads.
    told = copy(error)
    column = f"{table.fullname}.{type_.key}"
    field = "" if type_.field == column else f" (field {type_.field})"
    told.add_note(f"read from {column}{field}, {_row(table, names, cells, place)}")
    return told


def _row(
    table: Table, names: Sequence[Reader] | None, cells: Sequence[Sequence[Any]], place: int | None
) -> str:
    if names is None or place is None:
        return "of a row whose primary key was not read with it"
    row = [column[place : place + 1] for column in cells]
    parts = [
        f"{column.name}={_shown(read(row)[0])}" for column, read in zip(key_of(table), names, strict=True)
    ]
    return f"of the row with {', '.join(parts)}"


def _shown(part: Any) -> str:
    return repr(part) if isinstance(part, str | bytes) else str(part)
