"""Uniqueness while an index key is rotated, when one value has a token under each of two keys.

A unique constraint sees tokens, and not values. So whoever writes a value while there are two keys writes its
token under the other one first, and then in its place the one that is to stay: the constraint refuses either
if another row has it, be that row committed or not. So it holds between writers that are in different phases
of the rotation too, at every isolation level, without a lock that the database does not take by itself.

All of it happens within a savepoint: what is refused leaves no trace, in the statement's rows or in others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Insert,
    LargeBinary,
    NestedTransaction,
    Table,
    Text,
    Update,
    bindparam,
    column,
    table,
    update,
)
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.binding import binding_of, encrypted_columns, stored_name
from fieldvault.sqlalchemy.carrier import Claim
from fieldvault.sqlalchemy.embedded import Embedded
from fieldvault.sqlalchemy.types import Encrypted
from fieldvault.sqlalchemy.uniqueness import comparable, is_unique, named, unique_sets

__all__ = ["give_up", "hold", "settle"]

_HELD = "fieldvault: claims of a statement"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Step:
    """One cell of one row: where it stands, what it passes through, and what else is known of its row."""

    column: Column[Any]
    cells: tuple[Any, ...]
    beside: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """The claims of a statement that is being executed, and the savepoint that it is executed in."""

    statement: Any
    savepoint: NestedTransaction
    steps: Sequence[_Step]
    schemas: Mapping[str | None, str | None]


def hold(connection: Connection, statement: Insert | Update, rows: Sequence[Row], options: Row) -> None:
    """Before a statement that claims anything: open a savepoint for it.

    For an insert, a row with the value, under the token that stays, gets the one that is written first. So it
    meets the insert as it would at any other time: as a duplicate, or as the row that an upsert means.

    Raises:
        UnsupportedQuery: the connection commits each statement by itself.
    """
    written = _written(statement)
    steps = [] if written is None or not encrypted_columns(written) else _steps(statement, written, rows)
    if not steps:
        return
    _begin(connection)
    held = _Held(statement, connection.begin_nested(), steps, options.get("schema_translate_map") or {})
    connection.info[_HELD] = held
    if isinstance(statement, Insert):
        _exchange(connection, held, backwards=True)


def settle(
    connection: Connection,
    statement: Any,
    rows: Sequence[Row],
    row: Row,
    options: Row,
    result: Any,
) -> None:
    """Listener of ``after_execute``: what was written under another key first gets the token that stays.

    Raises:
        NotUnique: another row has the value already.
    """
    held: _Held | None = connection.info.get(_HELD)
    if held is None or held.statement is not statement:
        return
    _exchange(connection, held)
    del connection.info[_HELD]
    held.savepoint.commit()


def give_up(context: ExceptionContext) -> None:
    """Listener of ``handle_error``: a statement that failed leaves nothing of its savepoint."""
    connection = context.connection
    if connection is None or context.is_disconnect or connection.closed:
        return
    held: _Held | None = connection.info.pop(_HELD, None)
    if held is None or held.savepoint.connection is not connection or not held.savepoint.is_active:
        return
    try:
        held.savepoint.rollback()
    except DBAPIError:
        # A deadlock cost the whole transaction, and the savepoint with it: there is nothing left to undo.
        return


def _begin(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if connection._is_autocommit_isolation() or getattr(driver, "autocommit", False) is True:
        raise UnsupportedQuery(
            "an index key of this tenant is being rotated, and what is unique takes several statements: they "
            "need a transaction, and this connection commits each by itself (AUTOCOMMIT)"
        )
    if connection.dialect.name == "sqlite" and not driver.in_transaction:
        # Python's own driver begins with the first change: a savepoint would be the transaction, and its
        # release the commit.
        connection.exec_driver_sql("BEGIN")


def _written(statement: Insert | Update) -> Table | None:
    # In joined inheritance the ORM has one statement for all tables, and notes which one it means.
    noted = statement._annotations
    found: Any = noted.get("_emit_insert_table", noted.get("_emit_update_table", statement.table))
    while not isinstance(found, Table) and hasattr(found, "element"):
        found = found.element
    return found if isinstance(found, Table) else None


def _steps(statement: Insert | Update, written: Table, rows: Sequence[Row]) -> list[_Step]:
    """What a statement and its rows claim."""
    keys = [str(each.key) for each, _ in comparable(written)]
    unique = [key for key in keys if is_unique(written, key)]
    if not unique:
        return []
    lists = getattr(statement, "_multi_values", ())
    if lists:
        given = [Embedded.of_row(each, written).literals() for each in chain.from_iterable(lists)]
    else:
        embedded = Embedded(statement, written)
        literals = embedded.literals()
        given = [{**literals, **embedded.supplied(each)} for each in rows] if literals else list(rows)
    return [
        _Step(written.c[key], tuple(each[key]), _beside(written, key, each))
        for key in unique
        for each in given
        if each.get(key).__class__ is Claim
    ]


def _beside(written: Table, key: str, row: Row) -> tuple[tuple[str, Any], ...]:
    """What else the rows that may stand against this one have, so that the constraint's index finds them."""
    scope = binding_of(written.metadata).scopes.get(written)
    tenant = None if scope is None else scope.tenant
    known: dict[str, Any] = {}
    if tenant is not None and tenant.table is written:
        known[str(tenant.key)] = stored_name(tenant, row[key].tenant)
    together = unique_sets(written, key)
    for each in together[0] if len(together) == 1 else ():
        value = row.get(str(each.key))
        if each.key != key and not isinstance(each.type, Encrypted) and isinstance(value, str | int):
            known[str(each.key)] = value
    return tuple(sorted(known.items()))


def _exchange(connection: Connection, held: _Held, *, backwards: bool = False) -> None:
    """From each token to the next, a column and a step at a time."""
    ordered = sorted(held.steps, key=_kind)
    for _, group in groupby(ordered, key=_kind):
        steps = list(group)
        for place in range(len(steps[0].cells) - 1):
            pairs = [(each.cells[::-1] if backwards else each.cells)[place : place + 2] for each in steps]
            problem: IntegrityError | None = None
            try:
                _move(connection, held, steps, pairs)
            except IntegrityError as error:
                problem = error
            if problem is not None:
                # The listener of errors has rolled the savepoint back.
                raise named(problem, steps[0].column.table) or problem


def _kind(step: _Step) -> tuple[str, int, tuple[str, ...]]:
    return step.column.name, len(step.cells), tuple(map(itemgetter(0), step.beside))


def _move(
    connection: Connection, held: _Held, steps: Sequence[_Step], pairs: Sequence[tuple[Any, ...]]
) -> None:
    stored = steps[0].column
    written: Table = stored.table
    # Without the column's own type: what is exchanged is made already.
    plain: Any = column(stored.name, Text() if isinstance(pairs[0][0], str) else LargeBinary())
    beside = {name: column(written.c[name].name, written.c[name].type) for name, _ in steps[0].beside}
    schema = held.schemas.get(written.schema, written.schema)
    there = table(written.name, plain, *beside.values(), schema=schema)
    statement = update(there).where(
        plain == bindparam("fv_former"), *(each == bindparam(f"fv_{name}") for name, each in beside.items())
    )
    connection.execute(
        statement.values({plain: bindparam("fv_later")}),
        [
            {"fv_former": former, "fv_later": later, **{f"fv_{name}": value for name, value in each.beside}}
            for each, (former, later) in zip(steps, pairs, strict=True)
        ],
    )
