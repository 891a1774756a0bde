"""``BoundIndex``: a blind index of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table

from fieldvault.errors import ConfigurationError
from fieldvault.search.normalize import is_partial
from fieldvault.search.tokens import IndexSpec
from fieldvault.sqlalchemy.binding import Binding, binding_of, encrypted_columns

__all__ = ["BoundIndex", "indexes_of", "note_index"]


@dataclass(frozen=True, slots=True, eq=False)
class BoundIndex:
    """A blind index of a table: its column, and the encrypted columns that it indexes."""

    binding: Binding
    table: Table
    column: Column[Any]
    sources: tuple[Column[Any], ...]
    spec: IndexSpec

    @property
    def is_partial(self) -> bool:
        """Whether it indexes parts of values only, and so is asked for by itself only."""
        type_: Any = self.column.type
        return bool(type_.partial) or any(map(is_partial, self.spec.normalizers))

    @property
    def key(self) -> str:
        """The key of its column in rows."""
        return str(self.column.key)


def indexes_of(table: Table) -> Sequence[BoundIndex]:
    """The blind indexes of a table.

    Raises:
        ConfigurationError: one names what is no encrypted column of the table.
    """
    binding = binding_of(table.metadata)
    columns = binding.index_columns.get(table)
    if columns is None:
        return ()
    known: Sequence[BoundIndex] | None = binding.indexes.get(table)
    if known is None or len(known) != len(columns):
        known = binding.indexes[table] = tuple(_bound(binding, table, column) for column in columns)
    return known


def _bound(binding: Binding, table: Table, column: Column[Any]) -> BoundIndex:
    type_: Any = column.type
    sources = tuple(_source(binding, table, column, name) for name in type_.of)
    fields = [source.type.field for source in sources]  # type: ignore[attr-defined]
    name = f"{table.fullname}.{column.name}" if type_.name is None else type_.name
    return BoundIndex(binding, table, column, sources, type_.spec_for(fields, name))


def _source(binding: Binding, table: Table, index: Column[Any], name: str) -> Column[Any]:
    # By the attribute, as a model has it, else by the column's key.
    found = binding.attributes.get(table, {}).get(name)
    if found is None:
        found = table.c.get(name)
    if found is None or not any(found is known for known in encrypted_columns(table)):
        raise ConfigurationError(
            f"{table.name}.{index.name} is a blind index of {name!r}, which is no encrypted column there"
        )
    return found


def note_index(column: Column[Any], table: Table) -> None:
    """Remember the column of a blind index; its table's encrypted columns may not be there yet."""
    binding = binding_of(table.metadata)
    others = [known for known in binding.index_columns.get(table, ()) if known.key != column.key]
    binding.index_columns[table] = (*others, column)
    binding.indexes.pop(table, None)
