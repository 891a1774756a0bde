"""Upserts: what they put into a row that is there already was sealed for the row that was to be inserted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Insert, Table, and_, case, literal, null
from sqlalchemy.sql.elements import ClauseElement

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.binding import RowScope
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.embedded import is_null, type_of
from fieldvault.sqlalchemy.exactly import exactly
from fieldvault.sqlalchemy.identity import key_of, row_bound

__all__ = ["within_scope"]


def within_scope(statement: Insert, table: Table, scope: RowScope | None) -> Insert:
    """The upsert, so that it changes rows of the same tenant and subject only, and leaves others as they are.

    Their values would be sealed for another one. The same for the primary key, where values are bound to it.
    What sets neither an encrypted column nor one that chooses keys is left alone.

    Raises:
        UnsupportedQuery: an encrypted column gets anything but its own column of the row that was to be
            inserted, or NULL; its blind index is left as it is; whose the row is, or its key, is set to
            something else; or another table says whose a row is.
    """
    clause: Any = statement._post_values_clause
    assigned: Any = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or ()
    pairs = list(assigned.items() if isinstance(assigned, Mapping) else assigned)
    encrypted = [type_ for key, value in pairs if (type_ := _checked(table, key, value)) is not None]
    _check_indexes(table, pairs)
    columns = [] if scope is None else [each for each in (scope.tenant, scope.subject) if each is not None]
    moving = _moving(statement, table, pairs, columns)
    if not encrypted and not moving:
        return statement
    if any(column.table is not table for column in columns):
        raise UnsupportedQuery(
            f"the rows of {table.name} leave it to another table to say whose they are, and an upsert may "
            "meet anybody's; select the row, and insert it or change the loaded object"
        )
    if row_bound(table):
        columns.extend(key_of(table))
    if not columns:
        return statement
    return _narrowed(statement, table, and_(*(_same(statement, table, each) for each in columns)))


def _moving(statement: Any, table: Table, pairs: list[tuple[Any, Any]], columns: list[Any]) -> bool:
    """Whether columns are set on which the keys of the values depend, each to its own proposed value."""
    deciding = {str(each.key) for each in columns if each.table is table}
    if row_bound(table):
        deciding.update(str(each.key) for each in key_of(table))
    given = {key if isinstance(key, str) else str(key.key): value for key, value in pairs}
    moving = deciding.intersection(given)
    proposed = _proposed(statement) if moving else {}
    for name in moving:
        value: Any = given[name]
        if value is not proposed[name] and not (_is_column(value) and value.shares_lineage(proposed[name])):
            raise UnsupportedQuery(
                f"the upsert sets {name} of {table.name}, on which the keys of its encrypted values depend; "
                f"take it from the row that was to be inserted, or leave it out"
            )
    return bool(moving)


def _same(statement: Any, table: Table, column: Any) -> ColumnElement[bool]:
    return exactly(table.c[column.key], _proposed(statement)[column.key])


def _proposed(statement: Any) -> Any:
    """The columns of the row that was to be inserted."""
    alias = getattr(statement._post_values_clause, "inserted_alias", None)
    return statement.excluded if alias is None else alias.c


def _narrowed(statement: Insert, table: Table, condition: ColumnElement[bool]) -> Insert:
    made: Any = statement._generate()
    clause: Any = statement._post_values_clause._clone()  # type: ignore[union-attr]
    if hasattr(clause, "update_values_to_set"):
        former = clause.update_whereclause
        clause.update_whereclause = condition if former is None else and_(former, condition)
    else:
        # MariaDB has no WHERE there. What decides is itself never changed: it is the same on both sides.
        clause.update = {
            key: case((condition, _expression(value, table.c[key])), else_=table.c[key])
            for key, value in clause.update.items()
        }
    made._post_values_clause = clause
    return made  # type: ignore[no-any-return]


def _expression(value: Any, column: Any) -> Any:
    if isinstance(value, ClauseElement):
        return value
    return null() if value is None else literal(value, column.type)


def _checked(table: Table, key: Any, value: Any) -> Any:
    """The type of an encrypted column that is set to what can be there; ``None`` for any other column."""
    type_ = type_of(key, table)
    if type_ is None or is_null(value) or (_is_column(value) and value.type is type_):
        return type_
    name = key if isinstance(key, str) else key.key
    raise UnsupportedQuery(
        f"{table.name}.{name} is encrypted, and the statement does not say for which row it is updated; "
        f"take the value from the row that was to be inserted: its {name} in statement.excluded "
        "(statement.inserted for MariaDB)"
    )


def _check_indexes(table: Table, pairs: list[tuple[Any, Any]]) -> None:
    given = {key if isinstance(key, str) else str(key.key): value for key, value in pairs}
    for index in indexes_of(table) if given else ():
        sources = {str(source.key) for source in index.sources}
        token: Any = given.get(index.key)
        fits = is_null(token) or (_is_column(token) and token.type is index.column.type)
        touched = index.key in given or not sources.isdisjoint(given)
        if touched and not (fits and given.keys() >= {index.key, *sources}):
            raise UnsupportedQuery(
                f"the upsert updates {', '.join(sorted(sources))} of {table.name} apart from the blind index "
                f"{index.key}; take all of them from the row that was to be inserted, the index too"
            )


def _is_column(value: Any) -> bool:
    return getattr(value, "table", None) is not None
