"""Which rows a statement names: what its WHERE says that columns of theirs are equal to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table, Update
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, Grouping

from fieldvault.sqlalchemy.origins import origin
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["Named", "conjuncts", "named_in_where", "values_of"]

Named = Mapping[str, "BindParameter[Any]"]
"""By the keys of columns, what each is compared with."""


def conjuncts(criteria: Iterable[Any]) -> Iterable[Any]:
    """The conditions that all have to hold."""
    for each in criteria:
        if isinstance(each, Grouping):
            yield from conjuncts([each.element])
        elif isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from conjuncts(each.clauses)
        else:
            yield each


def named_in_where(statement: Update, table: Table) -> Named:
    """The columns of the updated table that have to be equal to one value in all rows that are updated."""
    found: dict[str, BindParameter[Any]] = {}
    for each in conjuncts(statement._where_criteria):
        if not isinstance(each, BinaryExpression) or each.operator is not operators.eq:
            continue
        column = origin(each.left)[0]
        other = each.right
        if (
            isinstance(other, BindParameter)
            and not other.expanding
            and column is not None
            and column.table is table
            and getattr(each.left, "table", None) in (table, statement.table)
            and not isinstance(column.type, Encrypted)
        ):
            found.setdefault(str(column.key), other)
    return found


def values_of(named: Named, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the columns are equal to, in one execution with a row of parameters."""
    values = {key: row.get(each.key, each.effective_value) for key, each in named.items()}
    return {key: value for key, value in values.items() if value is not None}
