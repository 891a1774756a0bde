"""Statements that carry rows: each row's values leave with that row's scope.

Covers Core and bulk ``insert()`` with a list of dictionaries, ``insert().values(…)`` of one row, and
``update()``, whose values leave with the ambient scope. What the unit of work sends has its carriers already.
A form in which rows cannot be told apart, or in which the database would see plaintext, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Insert, Table, TextClause, Update
from sqlalchemy.engine import ExecutionContext

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.binding import Binding, Owner, RowScope, binding_of, canonical, encrypted_columns
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.columns import default_of
from fieldvault.sqlalchemy.embedded import Embedded, check_upsert

__all__ = ["carry_rows", "refuse_nested"]

Row = Mapping[str, Any]
Executed = tuple[Any, Sequence[Row], Row]


def carry_rows(
    connection: Connection, statement: Any, rows: Sequence[Row], row: Row, options: Mapping[str, Any]
) -> Executed:
    """Listener of ``before_execute``: the statement and its rows, encrypted values in carriers.

    Raises:
        UnsupportedQuery: the statement would write plaintext, or hides which value belongs to which row.
        ScopeRequired, TenantMismatch: a row's values have no scope, or another tenant's than the ambient one.
    """
    if isinstance(statement, Insert):
        return _carry_insert(statement, rows, row)
    if isinstance(statement, Update):
        return _carry_update(statement, rows, row)
    if isinstance(statement, TextClause):
        return _carry_text(statement, rows, row)
    return statement, rows, row


def refuse_nested(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: ExecutionContext | None,
    executemany: bool,
) -> None:
    """Listener of ``before_cursor_execute``: an INSERT or UPDATE within another statement is not sent.

    Raises:
        UnsupportedQuery: it writes a table with encrypted columns, past everything that carries rows.
    """
    for cte in getattr(getattr(context, "compiled", None), "ctes", None) or ():
        inner = getattr(cte, "element", None)
        if (
            isinstance(inner, Insert | Update)
            and isinstance(inner.table, Table)
            and encrypted_columns(inner.table)
        ):
            raise UnsupportedQuery(
                f"a statement within a statement writes {inner.table.name}, which has encrypted columns; "
                "send it as a statement of its own"
            )


def _carry_text(statement: TextClause, rows: Sequence[Row], row: Row) -> Executed:
    types = {
        name: each.type for name, each in statement._bindparams.items() if hasattr(each.type, "ambient_owner")
    }
    if not types:
        return statement, rows, row
    carried = [{**each, **_carried_ambient(types, each)} for each in rows or [row]]
    return (statement, carried, row) if rows else (statement, rows, carried[0])


def _carry_insert(statement: Insert, rows: Sequence[Row], row: Row) -> Executed:
    table = statement.table
    columns = encrypted_columns(table) if isinstance(table, Table) else ()
    if not isinstance(table, Table) or not columns:
        return statement, rows, row
    carrying = _Rows(columns)
    if statement.select is not None:
        raise UnsupportedQuery(
            f"insert().from_select() into {table.name} would copy values that are sealed for other rows, "
            "or plaintext; select the rows and insert them"
        )
    check_upsert(statement, table)
    if statement._multi_values:
        return _carry_values_lists(statement, carrying), rows, row
    embedded = Embedded(statement, table)
    if not rows and not row:
        return embedded.replaced(carrying.carried(embedded.values_with({}))), rows, row
    if embedded.is_empty:
        carried = [{**each, **carrying.carried(each)} for each in rows or [row]]
    else:
        carried = [
            {**each, **embedded.places(carrying.carried(embedded.values_with(each)))}
            for each in rows or [row]
        ]
        statement = embedded.without_encrypted()
    return (statement, carried, row) if rows else (statement, rows, carried[0])


def _carry_values_lists(statement: Insert, carrying: _Rows) -> Insert:
    if carrying.scope is not None:
        raise UnsupportedQuery(
            f"insert().values([…]) into {carrying.table.name} does not keep rows apart; "
            "pass the list to execute(): execute(insert(…), [{…}, …])"
        )
    replaced: Insert = statement._generate()
    replaced._multi_values = tuple(
        [carrying.carried_list(row) for row in rows] for rows in statement._multi_values
    )
    return replaced


def _carry_update(statement: Update, rows: Sequence[Row], row: Row) -> Executed:
    table: Any = statement.table
    while not isinstance(table, Table) and hasattr(table, "element"):
        table = table.element
    columns = encrypted_columns(table) if isinstance(table, Table) else ()
    embedded = Embedded(statement, table)
    if not columns and not embedded.encrypted:
        return statement, rows, row
    sealed = {column.key: column.type for column in columns} | embedded.encrypted
    carrying = _Rows(columns) if columns else None
    carried = [
        {**each, **embedded.places(_carried_in_row(sealed, embedded.supplied(each), carrying))}
        for each in rows or [row]
    ]
    statement = embedded.replaced(_carried_ambient(sealed, embedded.literals()))
    return (statement, carried, row) if rows else (statement, rows, carried[0])


def _carried_in_row(types: Mapping[str, Any], values: Row, carrying: _Rows | None) -> Row:
    """Carriers for a row of an update's parameters, under the row's own scope as far as the row names it."""
    plain = {key: values[key] for key in types if _is_plain(values.get(key))}
    owner = None if carrying is None or not plain else carrying.owner_named_in(values)
    if owner is None:
        return _carried_ambient(types, plain)
    return {key: Carrier(value, *owner) for key, value in plain.items()}


def _carried_ambient(types: Mapping[str, Any], values: Row) -> Row:
    """Carriers for those values that are to be sealed, under the ambient scope.

    An update does not say to which rows its values go.
    """
    carried: dict[str, Any] = {}
    for key, value in values.items():
        type_ = types.get(key)
        if type_ is not None and _is_plain(value):
            carried[key] = Carrier(value, *type_.ambient_owner())
    return carried


def _is_plain(value: Any) -> bool:
    return value is not None and value.__class__ is not Carrier


class _Rows:
    """Makes carriers for the rows of one table."""

    def __init__(self, columns: Sequence[Column[Any]]) -> None:
        # Not the statement's own table: the ORM sends a copy with annotations.
        self.table = columns[0].table
        self._binding: Binding = binding_of(self.table.metadata)
        self.scope: RowScope | None = self._binding.scopes.get(self.table)
        self._keys = tuple(str(column.key) for column in columns)
        named = () if self.scope is None else (self.scope.tenant, self.scope.subject)
        self._defaulted = [
            column
            for column in (*named, *columns)
            if column is not None and column.table is self.table and column.default is not None
        ]
        self._ambient: Owner | None = None

    def carried(self, row: Row) -> dict[str, Any]:
        """What is to be put into a row: carriers, and defaults that have to be known for them."""
        put: dict[str, Any] = {}
        complete = row
        for column in self._defaulted:
            if column.key not in complete:
                made = default_of(column, complete)
                if made is not None or column.key in self._keys:
                    put[column.key] = made
                    complete = {**complete, column.key: made}
        owner: Owner | None = None
        for key in self._keys:
            value = complete.get(key)
            if value is not None and value.__class__ is not Carrier:
                if owner is None:
                    owner = self._owner(complete)
                put[key] = Carrier(value, *owner)
        return put

    def carried_list(self, row: Any) -> dict[Any, Any]:
        """One row of ``values([…])`` under the ambient scope: by column or name, or all columns in order."""
        given = row if isinstance(row, Mapping) else dict(zip(self.table.c.keys(), row, strict=False))
        embedded = Embedded.of_row(given, self.table)
        put = self.carried(embedded.values_with({}))
        return {**given, **embedded.by_name(put)}

    def owner_named_in(self, row: Row) -> Owner | None:
        """The owner, if the row names tenant or subject; what it leaves out is the ambient scope's."""
        scope = self.scope
        if scope is None or not any(
            column is not None and column.table is self.table and column.key in row
            for column in (scope.tenant, scope.subject)
        ):
            return None
        ambient = self._binding.vault.ambient.get()
        complete = dict(row)
        for column, name in ((scope.tenant, ambient.tenant), (scope.subject, ambient.subject)):
            if column is not None and complete.get(column.key) is None and name is not None:
                complete[column.key] = name
        return self._owner(complete)

    def _owner(self, row: Row) -> Owner:
        scope, name = self.scope, self.table.name
        if scope is None or any(
            column is not None and column.table is not self.table for column in (scope.tenant, scope.subject)
        ):
            # The same for all rows of a statement: it is asked for once.
            if self._ambient is None:
                self._ambient = self._binding.ambient_scope(scope, name)
            return self._ambient
        return self._binding.scope_of_row(
            scope,
            None if scope.tenant is None else canonical(scope.tenant, row.get(scope.tenant.key)),
            None if scope.subject is None else canonical(scope.subject, row.get(scope.subject.key)),
            name,
        )
