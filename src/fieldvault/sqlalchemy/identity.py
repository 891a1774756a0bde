"""A row's identity: what the values of a column with ``bind_row=True`` are bound to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import CHAR, NCHAR, Column, Integer, String, Table, Uuid
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from fieldvault.context import encode_row, text_of
from fieldvault.errors import ConfigurationError, UnsupportedQuery
from fieldvault.sqlalchemy.binding import canonical, encrypted_columns

__all__ = [
    "binds_rows",
    "check_key",
    "identities",
    "identity_in",
    "key_of",
    "named_in",
    "row_bound",
    "row_of",
]

_NAMING = (Integer, String, Uuid)
_STAYING = ("NO ACTION", "RESTRICT")

_NO_ROW = b""
"""The identity of no row: every key has a part, and so no encoded key is empty."""


def row_bound(table: Table) -> Sequence[Column[Any]]:
    """The columns of a table whose values are bound to their rows."""
    return [column for column in encrypted_columns(table) if binds_rows(column)]


def binds_rows(column: Column[Any]) -> bool:
    """Whether the values of an encrypted column are bound to their rows."""
    type_: Any = column.type
    return bool(type_.bind_row)


def key_of(table: Table) -> Sequence[Column[Any]]:
    """The columns of the primary key, in its order."""
    return list(table.primary_key.columns)


def check_key(table: Table) -> None:
    """Refuse to bind values to rows whose key has no one text, or that the database changes by itself.

    Raises:
        ConfigurationError: there is no primary key; a part of it is no text, integer or UUID, or text of a
            fixed length, or follows another table's key.
    """
    bound = row_bound(table)
    if not bound:
        return
    name, key = f"{table.name}.{bound[0].name}", key_of(table)
    wrong = [column for column in key if not all(isinstance(each, _NAMING) for each in _types(column))]
    if wrong or not key:
        raise ConfigurationError(
            f"{name} binds values to their rows, by a primary key of text, integers or "
            + (f"UUIDs, and {wrong[0].name} is {wrong[0].type}" if wrong else "UUIDs, and there is none")
        )
    for column in key:
        if any(isinstance(each, CHAR | NCHAR) for each in _types(column)):
            raise ConfigurationError(
                f"{name} binds values to their rows, by the primary key, and {column.name} is {column.type}, "
                "which databases fill up with spaces: the key would not be read as it was written; make it "
                "a String"
            )
    for constraint in table.foreign_key_constraints:
        followed = [column.name for column in constraint.columns if column in set(key)]
        if followed and (constraint.onupdate or "NO ACTION").upper() not in _STAYING:
            raise ConfigurationError(
                f"{name} binds values to their rows, by the primary key, and the foreign key of "
                f"{followed[0]} is ON UPDATE {constraint.onupdate}: the database would change the key, and "
                "nobody could read the values any more; leave ON UPDATE out"
            )


def _types(column: Column[Any]) -> Sequence[TypeEngine[Any]]:
    """The column's type, and those that it has on one database only."""
    return [column.type, *column.type._variant_mapping.values()]


def identity_in(table: Table, parts: Sequence[Any]) -> bytes:
    """The identity of a row that is about to be written, from the parts of its key.

    Raises:
        UnsupportedQuery: a part is not known yet.
        UnsupportedValue, ConfigurationError: a part is no key's.
    """
    columns = key_of(table)
    if any(part is None for part in parts):
        raise UnsupportedQuery(
            f"{row_bound(table)[0].type.field} binds values to their rows, and the statement does not "  # type: ignore[attr-defined]
            f"say in which row of {table.name}: give {', '.join(column.name for column in columns)} in "
            "Python, by a default such as uuid4 or in the statement's values, or change the loaded object "
            "and flush it"
        )
    return encode_row([_text(canonical(*each)) for each in zip(columns, parts, strict=True)])


def row_of(mapper: Mapper[Any], column: Column[Any], value_of: Callable[[str], Any]) -> bytes | None:
    """The row that a model's value of this column is bound to, if it is; ``value_of`` has its attributes.

    Raises:
        UnsupportedQuery, UnsupportedValue, ConfigurationError: as ``identity_in``.
    """
    if not binds_rows(column):
        return None
    attributes = [mapper.get_property_by_column(part).key for part in key_of(column.table)]
    return identity_in(column.table, list(map(value_of, attributes)))


def named_in(table: Table, row: Mapping[str, Any]) -> bytes:
    """The identity of the row that a statement's parameters name.

    Raises:
        UnsupportedQuery, UnsupportedValue, ConfigurationError: as ``identity_in``.
    """
    return identity_in(table, [row.get(str(column.key)) for column in key_of(table)])


def identities(parts: Sequence[Sequence[Any]]) -> Sequence[bytes]:
    """The identities of the rows of a page, from the parts of their keys, a column at a time."""
    return [
        _NO_ROW if None in row else encode_row([_text(part) for part in row])
        for row in zip(*parts, strict=True)
    ]


def _text(part: Any) -> str:
    text = text_of(part)
    if text is not None:
        return text
    raise ConfigurationError(
        f"a row is known by text, integers or UUIDs where values are bound to it, not by a "
        f"{type(part).__name__}"
    )
