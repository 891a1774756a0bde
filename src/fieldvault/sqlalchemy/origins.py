"""Where the columns of a statement come from, and so which of them say whose row an encrypted value is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, CompoundSelect, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import Cast, Label, Null, TypeCoerce

from fieldvault.sqlalchemy.binding import Binding, RowScope
from fieldvault.sqlalchemy.identity import key_of, row_bound
from fieldvault.sqlalchemy.opening import OpenPage, page_opener
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["Reader", "Reading", "is_null", "origin", "places_of", "readings_of"]

Reader = Callable[[Sequence[Sequence[Any]]], Sequence[Any]]
"""From a page, a sequence of cells for each place of a row, to what one column says, as Python has it."""

_Path = tuple[Any, ...]
"""From the statement down to a table: its aliases and subqueries, and the table itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Encrypted columns of one table, or one alias of it, in a statement.

    ``columns`` are their places in a row, and what opens them; ``types`` their types by place. ``tenant`` and
    ``subject`` read the rows' scope, where the model has it in its rows and the statement selects it;
    ``names`` read the rows' primary key where the statement selects it whole, and so does ``key`` if values
    are bound to it. ``direct`` says that the table itself is read, and no alias of it.
    """

    binding: Binding
    table: Table
    scope: RowScope | None
    direct: bool
    columns: tuple[tuple[int, OpenPage], ...]
    types: Mapping[int, Encrypted]
    tenant: Reader | None
    subject: Reader | None
    names: Sequence[Reader] | None
    key: Sequence[Reader] | None


def readings_of(compiled: Any, dialect: Dialect, description: Any) -> Iterable[Reading]:
    """What a compiled statement reads of encrypted columns, by where they come from."""
    places = places_of(compiled, description)
    scopes: dict[tuple[_Path, str], tuple[int, Column[Any]]] = {}
    groups: dict[tuple[_Path | None, Table], list[tuple[int, Encrypted]]] = {}
    for entry, shown, place in zip(compiled._result_columns, _shown(compiled), places, strict=True):
        if place is None:
            continue
        column, path = origin(*shown)
        if path is not None:
            scopes.setdefault((path, column.key), (place, column))
        if isinstance(entry.type, Encrypted) and entry.type.table is not None:
            groups.setdefault((path, entry.type.table), []).append((place, entry.type))

    def reader(path: _Path | None, table: Table, wanted: Column[Any] | None) -> Reader | None:
        if wanted is None or path is None:
            return None
        found = scopes.get((path, wanted.key))
        if wanted.table is not table:
            # Of another table of the model: as long as both are there once, they belong together.
            others = [
                each for (way, key), each in scopes.items() if (way[-1], key) == (wanted.table, wanted.key)
            ]
            once = len(others) == 1 and sum(other is table for _, other in groups) == 1
            found = others[0] if once else None
        return None if found is None else _reader(*found, dialect, description)

    for (path, table), members in groups.items():
        binding = members[0][1].binding
        if binding is not None:
            scope = binding.scopes.get(table)
            names = _key_readers(reader, path, table)
            yield Reading(
                binding=binding,
                table=table,
                scope=scope,
                direct=path is not None and len(path) == 1,
                columns=tuple((place, page_opener(type_.bound, dialect)) for place, type_ in members),
                types=dict(members),
                tenant=None if scope is None else reader(path, table, scope.tenant),
                subject=None if scope is None else reader(path, table, scope.subject),
                names=names,
                key=names if row_bound(table) else None,
            )


def _key_readers(
    reader: Callable[[_Path | None, Table, Column[Any]], Reader | None], path: _Path | None, table: Table
) -> Sequence[Reader] | None:
    """What reads the primary key, if the statement selects it whole and it stands there in the clear."""
    if any(isinstance(part.type, Encrypted) for part in key_of(table)):
        return None
    parts = [reader(path, table, part) for part in key_of(table)]
    found = [each for each in parts if each is not None]
    return found if found and len(found) == len(parts) else None


def _shown(compiled: Any) -> Sequence[Sequence[Any]]:
    """What SQLAlchemy knows each result column by; a union's, known by the first part, is taken by all."""
    entries = [entry.objects for entry in compiled._result_columns]
    if isinstance(compiled.statement, CompoundSelect):
        columns = list(compiled.statement.subquery().c)
        return [(column,) for column in columns] if len(columns) == len(entries) else [()] * len(entries)
    return entries


def places_of(compiled: Any, description: Sequence[Any]) -> Sequence[int | None]:
    """Each result column's place in a row, found as SQLAlchemy finds it: by order, or by name."""
    entries = compiled._result_columns
    by_order = compiled._textual_ordered_columns or (
        compiled._ordered_columns and len(entries) == len(description)
    )
    if by_order:
        return [place if place < len(description) else None for place in range(len(entries))]
    names = {each[0]: place for place, each in enumerate(description)}
    return [names.get(entry.keyname) for entry in entries]


def origin(*objects: Any) -> tuple[Any, _Path | None]:
    """The table's column that a column of a statement shows, and the way to it; no way for what is computed.

    ``objects`` are what SQLAlchemy knows a column by.
    """
    for shown in objects:
        found = _traced(shown)
        if found is not None:
            return found
    return None, None


def _traced(column: Any) -> tuple[Any, _Path] | None:
    while isinstance(column, Label):
        column = column.element
    table = getattr(column, "table", None)
    if isinstance(table, Table):
        return column, (table,)
    if table is None:
        return None
    # A column of a union shows one of each part of it; a renamed one is known by its label as well.
    traced = [_traced(each) for each in column._proxies if not is_null(each)]
    found = [each for each in traced if each is not None]
    if not found or len(found) < len(traced):
        return None
    column, way = found[0]
    ways = dict.fromkeys(path for _, path in found)
    return column, (table, *way) if len(ways) == 1 else (table, tuple(ways), way[-1])


def is_null(element: Any) -> bool:
    """Whether it is NULL, also where it is given a type or a name."""
    while isinstance(element, Label | Cast | TypeCoerce):
        element = element.clause if isinstance(element, Cast | TypeCoerce) else element.element
    return isinstance(element, Null)


def _reader(place: int, column: Column[Any], dialect: Dialect, description: Any) -> Reader:
    process = column.type._cached_result_processor(dialect, description[place][1])
    if process is None:
        return itemgetter(place)
    return lambda cells: list(map(process, cells[place]))
