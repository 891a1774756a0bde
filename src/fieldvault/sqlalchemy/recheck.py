"""Truncated indexes find too much: what they find is compared again, in Python, with the value itself.

That works where a row can be left out without a trace: in a SELECT whose rows all have to match, and that has
the value in them. Anything else would count, change or cut off rows that only look alike, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Select
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators, visitors

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.bound_index import BoundIndex
from fieldvault.sqlalchemy.carrier import Sealed
from fieldvault.sqlalchemy.indexing import content_maker
from fieldvault.sqlalchemy.matching import Match
from fieldvault.sqlalchemy.origins import origin
from fieldvault.sqlalchemy.wheres import conjuncts

__all__ = ["Condition", "Recheck", "conditions_of", "rechecks_of"]

Condition = tuple[int, Callable[[Any], bool]]
"""A place in a row, and whether the value there is one that was looked for."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """A comparison of a truncated index in a statement.

    ``parameter`` has the values that are looked for, ``entry`` is the place of the value among the result's
    columns.
    """

    index: BoundIndex
    parameter: str
    entry: int


def rechecks_of(statement: Any, compiled: Any) -> Sequence[Recheck]:
    """The comparisons whose rows have to be compared again.

    Raises:
        UnsupportedQuery: for one of them that cannot be done.
    """
    found = [
        each
        for each in visitors.iterate(statement)
        if isinstance(each, Match) and each.index is not None and each.index.spec.is_truncated
    ]
    if not found:
        return ()
    can_leave_out = (
        isinstance(statement, Select)
        and statement._limit_clause is statement._offset_clause is statement._fetch_clause is None
    )
    needed = list(conjuncts(statement._where_criteria)) if can_leave_out else []
    return [_recheck(match, needed, compiled) for match in found]


def conditions_of(rechecks: Iterable[Recheck], places: Sequence[int | None], context: Any) -> list[Condition]:
    """The conditions that the rows of one execution have to meet."""
    dialect = context.dialect
    return [
        (place, _among(each.index, _sought(context.compiled_parameters[0], each.parameter), dialect))
        for each in rechecks
        if (place := places[each.entry]) is not None
    ]


def _recheck(match: Match, needed: Sequence[Any], compiled: Any) -> Recheck:
    index = cast(BoundIndex, match.index)
    if (
        any(match is each for each in needed)
        and match.operator is operators.in_op
        and len(index.sources) == 1
    ):
        where = origin(match.left)[1]
        for place, entry in enumerate(compiled._result_columns):
            column, path = origin(*entry.objects)
            if path == where and column is index.sources[0]:
                return Recheck(index, compiled.bind_names[match.right], place)
    raise UnsupportedQuery(
        f"{index.table.name}.{index.column.name} is a truncated index, which also finds rows with other "
        f"values: select {index.sources[0].key} itself with the rows that match, without LIMIT, OR and NOT, "
        "and count, update or delete by what came back"
    )


def _sought(parameters: dict[str, Any], name: str) -> frozenset[bytes]:
    """What the values that are looked for were normalized to."""
    expanded = re.compile(rf"{re.escape(name)}_\d+")
    return frozenset(
        value[1] for key, value in parameters.items() if value.__class__ is Sealed and expanded.fullmatch(key)
    )


def _among(index: BoundIndex, sought: frozenset[bytes], dialect: Dialect) -> Callable[[Any], bool]:
    content = content_maker(index, dialect)
    return lambda value: value is not None and content([value]) in sought
