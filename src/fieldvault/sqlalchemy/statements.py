"""Statements that carry rows: each row's values are sealed under that row's own keys before it is sent.

Covers Core and bulk ``insert()`` with a list of dictionaries, ``insert().values(…)`` of one row, and
``update()``, whose values are sealed for the ambient scope. What the unit of work sends comes in carriers,
which say whose it is. A form in which rows cannot be told apart, or in which the database would see
plaintext, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Table, TextClause, Update
from sqlalchemy.engine import Compiled, Dialect, ExecutionContext

from fieldvault.errors import UnsupportedQuery
from fieldvault.keys.records import KeySlot
from fieldvault.sqlalchemy import claims
from fieldvault.sqlalchemy.binding import encrypted_columns
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.embedded import Embedded
from fieldvault.sqlalchemy.exactly import exactly
from fieldvault.sqlalchemy.identity import named_in
from fieldvault.sqlalchemy.queries import refuse_questions
from fieldvault.sqlalchemy.rows import Rows
from fieldvault.sqlalchemy.types import Encrypted
from fieldvault.sqlalchemy.upserts import within_scope
from fieldvault.sqlalchemy.waiting import fetch_index_keys, fetch_slots
from fieldvault.sqlalchemy.wheres import Named, named_in_where, values_of

__all__ = ["refuse_unsupported", "seal_rows"]

Row = Mapping[str, Any]
Executed = tuple[Any, Sequence[Row], Row]


def seal_rows(
    connection: Connection, statement: Any, rows: Sequence[Row], row: Row, options: Mapping[str, Any]
) -> Executed:
    """Listener of ``before_execute``: the statement and its rows, encrypted values sealed.

    Raises:
        UnsupportedQuery: the statement would write plaintext, or hides which value belongs to which row.
        ScopeRequired, TenantMismatch: a row's values have no scope, or another tenant's than the ambient one.
        UnsupportedValue, KeyShredded, KeySuspended, KMSError, KeyStoreError: as for one value.
    """
    if isinstance(statement, Insert):
        sealed = _seal_insert(connection.dialect, statement, rows, row)
        claims.hold(connection, sealed[0], sealed[1] or [sealed[2]], options)
        return sealed
    if isinstance(statement, Update):
        sealed = _seal_update(connection.dialect, statement, rows, row)
        claims.hold(connection, sealed[0], sealed[1] or [sealed[2]], options)
        return sealed
    if isinstance(statement, TextClause):
        return _seal_text(connection.dialect, statement, rows, row)
    if isinstance(statement, Compiled):
        _check_compiled(statement)
    return statement, rows, row


def refuse_unsupported(
    connection: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: ExecutionContext | None,
    executemany: bool,
) -> None:
    """Listener of ``before_cursor_execute``: what cannot mean what it says is not sent.

    Raises:
        UnsupportedQuery: the statement asks about ciphertexts, or an INSERT or UPDATE within it writes a
            table with encrypted columns, past everything that seals rows.
    """
    refuse_questions(context)
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


def _check_compiled(compiled: Compiled) -> None:
    """SQLAlchemy 2.0 executes what was compiled by hand, whose parameters nothing joins to rows any more."""
    statement = compiled.statement
    table = getattr(statement, "table", None)
    if isinstance(statement, Insert | Update) and isinstance(table, Table) and encrypted_columns(table):
        raise UnsupportedQuery(
            f"a compiled statement writes {table.name}, which has encrypted columns; execute the statement, "
            "not what it was compiled into"
        )


def _seal_text(dialect: Dialect, statement: TextClause, rows: Sequence[Row], row: Row) -> Executed:
    types = {
        name: each.type for name, each in statement._bindparams.items() if isinstance(each.type, Encrypted)
    }
    if not types:
        return statement, rows, row
    for type_ in types.values():
        if indexes_of(type_.bound.table) or type_.deterministic:
            raise UnsupportedQuery(
                f"{type_.field} is deterministic or has a blind index, and text() does not say what it does "
                "with the value; use select(), insert() or update()"
            )
    sealed = [{**each, **_seal_ambient(dialect, types, each)} for each in rows or [row]]
    return (statement, sealed, row) if rows else (statement, rows, sealed[0])


def _seal_insert(dialect: Dialect, statement: Insert, rows: Sequence[Row], row: Row) -> Executed:
    # In joined inheritance the ORM has one statement for all tables, and notes which one it means.
    table = statement._annotations.get("_emit_insert_table", statement.table)
    columns = encrypted_columns(table) if isinstance(table, Table) else ()
    if not isinstance(table, Table) or not columns:
        return statement, rows, row
    if statement.select is not None:
        raise UnsupportedQuery(
            f"insert().from_select() into {table.name} would copy values that are sealed for other rows, "
            "or plaintext; select the rows and insert them"
        )
    sealing = Rows(columns, dialect)
    statement = within_scope(statement, table, sealing.scope)
    if statement._multi_values:
        return _seal_values_lists(statement, sealing), rows, row
    embedded = Embedded(statement, table)
    if not rows and not row:
        put: dict[str, Any] = {}
        sealing.seal([embedded.values_with({})], [put])
        return embedded.replaced(put), rows, row
    given = rows or [row]
    if embedded.is_empty:
        sealed = [dict(each) for each in given]
        sealing.seal(given, sealed)
    else:
        puts: list[dict[str, Any]] = [{} for _ in given]
        sealing.seal([embedded.values_with(each) for each in given], puts)
        sealed = [{**each, **embedded.places(put)} for each, put in zip(given, puts, strict=True)]
        statement = embedded.without_encrypted()
    return (statement, sealed, row) if rows else (statement, rows, sealed[0])


def _seal_values_lists(statement: Insert, sealing: Rows) -> Insert:
    table = sealing.table
    if sealing.scope is not None:
        raise UnsupportedQuery(
            f"insert().values([…]) into {table.name} does not keep rows apart; "
            "pass the list to execute(): execute(insert(…), [{…}, …])"
        )
    replaced: Insert = statement._generate()
    replaced._multi_values = tuple(_seal_values_list(rows, sealing) for rows in statement._multi_values)
    return replaced


def _seal_values_list(rows: Sequence[Any], sealing: Rows) -> list[dict[Any, Any]]:
    """Rows of ``values([…])`` under the ambient scope: by column or name, or all columns in order."""
    given = [
        row if isinstance(row, Mapping) else dict(zip(sealing.table.c.keys(), row, strict=False))
        for row in rows
    ]
    embedded = [Embedded.of_row(row, sealing.table) for row in given]
    puts: list[dict[str, Any]] = [{} for _ in rows]
    sealing.seal([each.values_with({}) for each in embedded], puts)
    return [{**row, **each.by_name(put)} for row, each, put in zip(given, embedded, puts, strict=True)]


def _seal_update(dialect: Dialect, statement: Update, rows: Sequence[Row], row: Row) -> Executed:
    table: Any = statement._annotations.get("_emit_update_table", statement.table)
    while not isinstance(table, Table) and hasattr(table, "element"):
        table = table.element
    columns = encrypted_columns(table) if isinstance(table, Table) else ()
    embedded = Embedded(statement, table)
    if not columns and not embedded.encrypted:
        return statement, rows, row
    types = {str(column.key): column.type for column in columns} | embedded.encrypted
    own = columns[0].table if columns else None
    for type_ in embedded.encrypted.values():
        if type_.bound.table is not own and (indexes_of(type_.bound.table) or type_.deterministic):
            raise UnsupportedQuery(
                f"the statement writes {type_.field}, which is deterministic or has a blind index, through "
                "another table; update its own table"
            )
    sealing = Rows(columns, dialect) if columns else None
    named = {} if own is None else named_in_where(statement, own)
    if sealing is not None:
        sealing.fetch_keys(_owners_carried(rows or [row]))
    sealed = [
        {
            **each,
            **embedded.places(
                _seal_row(dialect, types, {**values_of(named, each), **embedded.supplied(each)}, sealing)
            ),
        }
        for each in rows or [row]
    ]
    literals = embedded.literals()
    if sealing is not None:
        sealing.check_move(literals)
    # What stands in the statement goes to the rows of all parameters.
    first = values_of(named, row if not rows else {}) if len(rows) < 2 else {}
    put = _seal_row(dialect, types, {**first, **literals}, sealing)
    replaced = embedded.replaced(put)
    written_here = any(key in literals for key in types)
    if sealing is not None and (written_here or any(_has_plain(types, each) for each in rows or [row])):
        replaced = sealing.within_scope(replaced, {**first, **literals, **(rows or [row])[0]})
        replaced = _by_the_letter(replaced, sealing, named)
    return (replaced, sealed, row) if rows else (replaced, rows, sealed[0])


def _by_the_letter(statement: Update, sealing: Rows, named: Named) -> Update:
    """What the WHERE says of whose the rows are, as keys take it: a collation may take more for the same."""
    for key in sealing.deciding:
        if key in named:
            statement = statement.where(exactly(statement.table.c[key], named[key]))
    return statement


def _has_plain(types: Mapping[str, Any], values: Row) -> bool:
    """Whether there are values that were not sealed for an object that a flush knows."""
    return any(values.get(key) is not None and values[key].__class__ is not Carrier for key in types)


def _owners_carried(rows: Sequence[Row]) -> Iterator[tuple[str, str | None]]:
    for row in rows:
        for value in row.values():
            if value.__class__ is Carrier:
                yield value.tenant, value.subject
                break


def _seal_row(
    dialect: Dialect, types: Mapping[str, Any], values: Row, sealing: Rows | None
) -> dict[str, Any]:
    """The cells of a row of an update's parameters, under the row's own scope as far as the row names it."""
    found = {key: values[key] for key in types if values.get(key) is not None}
    owner = None
    if sealing is not None and any(value.__class__ is not Carrier for value in found.values()):
        owner = sealing.owner_named_in(values)
    # What says nothing of its row goes to whatever rows the statement finds: the ambient scope's.
    put = {key: _seal_one(dialect, types[key], value, owner, values) for key, value in found.items()}
    if sealing is not None and sealing.fillers:
        sealing.index(values, owner, put)
    return put


def _seal_ambient(dialect: Dialect, types: Mapping[str, Any], values: Row) -> dict[str, Any]:
    """The cells for those values that are to be sealed, under the ambient scope: no row is named."""
    return {
        key: _seal_one(dialect, types[key], value, None, {})
        for key, value in values.items()
        if key in types and value is not None
    }


def _seal_one(
    dialect: Dialect, type_: Encrypted, value: Any, owner: tuple[str, str | None] | None, values: Row
) -> Any:
    column = type_.bound
    row: bytes | None = None
    if value.__class__ is Carrier:
        owner, row = (value.tenant, value.subject), value.row
    elif owner is None:
        owner = column.ambient_owner()
    if column.bind_row and row is None:
        row = named_in(column.table, values)
    if column.deterministic:
        fetch_index_keys(column.binding.vault, [owner[0]])
    else:
        fetch_slots(column.binding.vault, [KeySlot(*owner)])
    return type_.column_sealer(dialect)([value], owner, None if row is None else [row])[0]
