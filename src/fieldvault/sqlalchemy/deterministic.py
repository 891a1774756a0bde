"""Deterministic columns: their cells, which the database compares as it would compare the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from sqlalchemy import types as sql
from sqlalchemy.dialects.mysql import VARBINARY, VARCHAR
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, Grouping
from sqlalchemy.sql.selectable import ScalarSelect, SelectBase
from sqlalchemy.types import TypeEngine

from fieldvault.envelope import HEADER_SIZE, TAG_SIZE, TEXT_PREFIX, to_text
from fieldvault.errors import ConfigurationError, UnsupportedQuery
from fieldvault.keys.indexing import IndexKeys
from fieldvault.search.deterministic import DeterministicField
from fieldvault.sqlalchemy.binding import Owner
from fieldvault.sqlalchemy.bound import BoundColumn
from fieldvault.sqlalchemy.carrier import Sealed, carried
from fieldvault.sqlalchemy.cells import cell_of
from fieldvault.sqlalchemy.coercion import inner_type
from fieldvault.sqlalchemy.uniqueness import is_unique
from fieldvault.suites import AES_256_SIV

__all__ = [
    "are_comparable",
    "cells_sought",
    "check_deterministic",
    "column_fixer",
    "indexable",
    "is_deterministic",
]

_ONE_ENCODING = (sql.String, sql.Integer, sql.Boolean, sql.Date, sql.Uuid, sql.LargeBinary, sql.Interval)
_SHORT = 255
_LONGEST = 65_535 - 255
"""What MariaDB has room for in a row, with some to spare."""


def is_deterministic(type_: Any) -> bool:
    """Whether a column's type is ``Encrypted(…, deterministic=True)``."""
    return bool(getattr(type_, "deterministic", False))


def are_comparable(one: Any, operator: Any, other: Any) -> bool:
    """Whether the database may compare two expressions: deterministic ones whose cells are alike, or NULL.

    The ciphertext of a value is another one in another field, or with other padding, and other bytes as text.
    """
    other = other.__clause_element__() if hasattr(other, "__clause_element__") else other
    if isinstance(other, Grouping):
        other = other.element
    if operator in (operators.in_op, operators.not_in_op) and isinstance(other, SelectBase | ScalarSelect):
        inner = other.element if isinstance(other, ScalarSelect) else other
        columns = list(inner.selected_columns)
        other = columns[0] if len(columns) == 1 else None
    elif operator not in (operators.eq, operators.ne):
        return False
    types = (getattr(one, "type", None), getattr(other, "type", None))
    return (
        all(map(is_deterministic, types))
        and _looks(types[0]) == _looks(types[1])
        and not isinstance(other, BindParameter)
    )


def _looks(type_: Any) -> tuple[str | None, int | None, str]:
    """What the cell of a value depends on, besides its tenant's key."""
    return type_.field, type_.padding, type_.storage


def check_deterministic(type_: TypeEngine[Any], suite: str | None, bind_row: bool) -> None:
    """Refuse what would part equal values.

    Raises:
        ConfigurationError: another suite, binding to rows, or a type whose equal values have several
            encodings, such as 1.0 and 1.00.
    """
    inner = inner_type(type_)
    if not isinstance(inner, _ONE_ENCODING):
        raise ConfigurationError(
            f"Encrypted({type(type_).__name__}, deterministic=True): equal values of this type have several "
            "encodings, so the database would take them for different ones; there is one only for text, "
            "bytes, whole numbers, booleans, dates, intervals, UUIDs and enumerations"
        )
    if suite not in (None, AES_256_SIV.name):
        raise ConfigurationError(f"deterministic=True is the suite {AES_256_SIV.name}, not {suite}")
    if bind_row:
        raise ConfigurationError(
            "bind_row=True makes equal values differ by row, and deterministic=True alike"
        )


def column_fixer(
    column: BoundColumn, dialect: Dialect
) -> Callable[[Sequence[Any], Sequence[Owner] | Owner, Any], list[Sealed | None]]:
    """A function that makes the cells of one column, each under its tenant's index key."""
    into, spec, show = column.coercion(dialect).into, _spec(column), _shown(column)

    def fix(values: Sequence[Any], owners: Sequence[Owner] | Owner, _: Any) -> list[Sealed | None]:
        ring, unique = column.binding.vault.ring, is_unique(column.table, column.key)
        cells: list[Sealed | None] = []
        keys, last = None, ""
        each_owner = repeat(owners) if isinstance(owners, tuple) else owners
        for value, (tenant, subject) in zip(map(carried, values), each_owner, strict=False):
            if value is None:
                cells.append(None)
                continue
            if subject is not None:
                raise UnsupportedQuery(
                    f"{column.field} is deterministic, so its values are the tenant's, and no subject's "
                    "shred reaches them: write them outside vault.scope(subject=…)"
                )
            if keys is None or tenant != last:
                keys, last = ring.index_keys(tenant), tenant
            cells.append(cell_of(keys, spec, spec.content(into(value)), unique=unique, show=show))
        return cells

    return fix


def cells_sought(
    column: BoundColumn, dialect: Dialect, keys: IndexKeys, values: Sequence[Any]
) -> list[Sealed]:
    """The cells that rows with one of these values may have: one for each value and usable key."""
    into, spec, show = column.coercion(dialect).into, _spec(column), _shown(column)
    contents = dict.fromkeys(spec.content(into(value)) for value in values)
    return [Sealed((show(cell),)) for content in contents for cell in keys.tokens(spec, content)]


def indexable(type_: TypeEngine[Any], padding: int | None, textual: bool) -> TypeEngine[Any] | None:
    """MariaDB's type for cells that it can index, by the longest value; ``None`` if nothing bounds that."""
    inner = inner_type(type_)
    length = _SHORT
    if isinstance(inner, sql.String | sql.LargeBinary):
        if inner.length is None:
            return None
        length = inner.length * (4 if isinstance(inner, sql.String) else 1)
    size = HEADER_SIZE + TAG_SIZE + length + (padding or 0)
    if textual:
        size = len(TEXT_PREFIX) + -(-4 * size // 3)
    if size > _LONGEST:
        return None
    # Not by a collation that takes upper for lower case: base64 tells them apart.
    return VARCHAR(size, charset="ascii", collation="ascii_bin") if textual else VARBINARY(size)


def _spec(column: BoundColumn) -> DeterministicField:
    return DeterministicField(column.field, column.padding)


def _shown(column: BoundColumn) -> Callable[[bytes], Any]:
    return to_text if column.textual else bytes
