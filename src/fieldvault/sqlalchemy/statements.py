"""Statements that carry rows: each row's values leave with that row's scope.

Covers Core and bulk ``insert()`` with a list of dictionaries, and ``insert().values(…)`` of one row. What the
unit of work sends has its carriers already. A form in which rows cannot be told apart is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Insert, Table, Update
from sqlalchemy.sql.elements import BindParameter, ClauseElement, Null

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.binding import Binding, RowScope, binding_of, encrypted_columns
from fieldvault.sqlalchemy.carrier import Carrier

__all__ = ["carry_rows"]

Row = Mapping[str, Any]
Executed = tuple[Any, Sequence[Row], Row]


def carry_rows(
    connection: Connection, statement: Any, rows: Sequence[Row], row: Row, options: Mapping[str, Any]
) -> Executed:
    """Listener of ``before_execute``: the statement and its rows, encrypted values in carriers.

    Raises:
        UnsupportedQuery: the statement would write plaintext, or hides which value belongs to which row.
    """
    table = getattr(statement, "table", None)
    if isinstance(statement, Insert | Update) and isinstance(table, Table):
        columns = encrypted_columns(table)
        if columns:
            _refuse_expressions(statement, columns, table)
            if isinstance(statement, Insert):
                return _carry_insert(statement, rows, row, _Rows(table, columns))
    return statement, rows, row


def _carry_insert(statement: Insert, rows: Sequence[Row], row: Row, carrying: _Rows) -> Executed:
    if statement.select is not None:
        raise UnsupportedQuery(
            f"insert().from_select() into {carrying.table.name} would copy values that are sealed for "
            f"other rows, "
            "or plaintext; select the rows and insert them"
        )
    if statement._multi_values:
        if carrying.scope is None:
            return statement, rows, row
        raise UnsupportedQuery(
            f"insert().values([…]) into {carrying.table.name} does not keep rows apart; "
            "pass the list to execute(): execute(insert(…), [{…}, …])"
        )
    embedded = {_key(name): _plain(value) for name, value in (statement._values or {}).items()}
    if rows:
        return statement, [carrying.carried({**embedded, **each}, each) for each in rows], row
    if row or not embedded:
        return statement, rows, carrying.carried({**embedded, **row}, row)
    return statement.values(carrying.carried(embedded, {})), rows, row


def _key(name: Any) -> str:
    return name if isinstance(name, str) else str(name.key)


def _plain(value: Any) -> Any:
    return value.effective_value if isinstance(value, BindParameter) else value


class _Rows:
    """Makes carriers for the rows of one table."""

    def __init__(self, table: Table, columns: Sequence[Column[Any]]) -> None:
        self.table = table
        self._columns = columns
        self._binding: Binding = binding_of(table.metadata)
        self.scope: RowScope | None = self._binding.scopes.get(table)

    def carried(self, row: Row, given: Row) -> dict[str, Any]:
        """``given`` with carriers in place of encrypted values.

        ``row`` is the whole row with what the statement holds.
        """
        out = dict(given)
        complete = dict(row)
        scope = self.scope
        if scope is not None:
            for key in (scope.tenant, scope.subject):
                made = (
                    default_of(self.table.c[key]) if key is not None and complete.get(key) is None else None
                )
                if key is not None and made is not None:
                    complete[key] = out[key] = made
        values: dict[str, Any] = {}
        for column in self._columns:
            value = complete[column.key] if column.key in complete else default_of(column)
            if value is not None and value.__class__ is not Carrier:
                values[column.key] = value
        if not values:
            return out
        if scope is not None and (scope.tenant_elsewhere or scope.subject_elsewhere):
            tenant, subject = self._binding.ambient_scope(scope, self.table.name)
        else:
            tenant, subject = self._binding.scope_of_row(
                scope,
                complete.get(scope.tenant) if scope is not None and scope.tenant is not None else None,
                complete.get(scope.subject) if scope is not None and scope.subject is not None else None,
                self.table.name,
            )
        out.update({key: Carrier(value, tenant, subject) for key, value in values.items()})
        return out


def default_of(column: Column[Any]) -> Any:
    """What Python would put into a column that a row leaves out, ``None`` if nothing.

    A value, or a function's answer.
    """
    default = column.default
    if default is None:
        return None
    if default.is_scalar:
        return default.arg  # type: ignore[attr-defined]
    if default.is_callable:
        return default.arg(None)  # type: ignore[attr-defined]
    return None


def _refuse_expressions(statement: Insert | Update, columns: Sequence[Column[Any]], table: Table) -> None:
    """Refuse what the database would compute for an encrypted column.

    Its plaintext would be in the statement.
    """
    names = {column.key for column in columns}
    for name, value in (statement._values or {}).items():
        key = _key(name)
        if key in names and isinstance(value, ClauseElement) and not isinstance(value, BindParameter | Null):
            raise UnsupportedQuery(
                f"{table.name}.{key} is encrypted, so the database cannot compute it; compute it in "
                f"Python and pass the value"
            )
