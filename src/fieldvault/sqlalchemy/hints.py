"""What a refused question might have asked instead: the blind indexes beside a column, by their names."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table

from fieldvault.sqlalchemy.bound_index import BoundIndex, indexes_of

__all__ = ["indexes_to_ask"]


def indexes_to_ask(type_: Any) -> str:
    """A clause for each index that has a part of a column's values, or them together with others.

    They answer for themselves, and not for the column of this type.
    """
    table, field = getattr(type_, "table", None), getattr(type_, "field", None)
    if not isinstance(table, Table):
        return ""
    return "".join(_clause(index, field) for index in indexes_of(table) if field in _fields(index))


def _clause(index: BoundIndex, field: str) -> str:
    name = f"{index.table.name}.{index.column.name}"
    others = [each for each in _fields(index) if each != field]
    if others:
        return f"; {name} indexes it together with {', '.join(others)}: compare that with a tuple of values"
    if index.is_partial:
        return (
            f"; {name} indexes a part of it: compare that, and what it finds with the whole value in Python"
        )
    return ""


def _fields(index: BoundIndex) -> list[str]:
    return [source.type.field for source in index.sources]  # type: ignore[attr-defined]
