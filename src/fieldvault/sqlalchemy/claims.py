"""Uniqueness while an index key is rotated, when one value has a token under each of two keys.

A unique constraint sees tokens, and not values. So whoever writes a value while there are two keys writes its
token under the other one first, and then in its place the one that is to stay: the constraint refuses either
if another row has it, be that row committed or not. So it holds between writers that are in different phases
of the rotation too, at every isolation level, without a lock that the database does not take by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Insert, LargeBinary, Table, Text, Update, bindparam, column, table, update
from sqlalchemy.exc import IntegrityError

from fieldvault.sqlalchemy.binding import encrypted_columns
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.carrier import Claim
from fieldvault.sqlalchemy.embedded import Embedded
from fieldvault.sqlalchemy.uniqueness import is_unique, named

__all__ = ["expose", "settle"]

Row = Mapping[str, Any]


def expose(connection: Connection, statement: Insert, rows: Sequence[Row]) -> None:
    """Before an insert: a row with the value, under the token that stays, gets the one that is written first.

    So it meets the insert as it would at any other time: as a duplicate, or as the row that an upsert means.
    """
    written = _written(statement)
    if written is not None:
        for name, claims in _claims(statement, written, rows).items():
            _exchange(connection, written, name, [claim[::-1] for claim in claims])


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
    if not isinstance(statement, Insert | Update):
        return
    written = _written(statement)
    if written is not None:
        for name, claims in _claims(statement, written, rows or [row]).items():
            _exchange(connection, written, name, claims)


def _written(statement: Insert | Update) -> Table | None:
    # In joined inheritance the ORM has one statement for all tables, and notes which one it means.
    noted = statement._annotations
    found: Any = noted.get("_emit_insert_table", noted.get("_emit_update_table", statement.table))
    while not isinstance(found, Table) and hasattr(found, "element"):
        found = found.element
    return found if isinstance(found, Table) else None


def _claims(statement: Insert | Update, written: Table, rows: Sequence[Row]) -> dict[str, list[Claim]]:
    """What a statement and its rows claim, by column."""
    unique = [key for key in _comparable(written) if is_unique(written, key)]
    if not unique:
        return {}
    lists = getattr(statement, "_multi_values", ())
    if lists:
        given = [Embedded.of_row(each, written).literals() for each in chain.from_iterable(lists)]
    else:
        embedded = Embedded(statement, written)
        given = [embedded.literals(), *map(embedded.supplied, rows)]
    found = {key: [each[key] for each in given if each.get(key).__class__ is Claim] for key in unique}
    return {key: claims for key, claims in found.items() if claims}


def _comparable(written: Table) -> Iterable[str]:
    """The columns that hold the same for the same value."""
    yield from (index.key for index in indexes_of(written))
    yield from (str(each.key) for each in encrypted_columns(written) if each.type.deterministic)  # type: ignore[attr-defined]


def _exchange(connection: Connection, written: Table, name: str, claims: Sequence[tuple[Any, ...]]) -> None:
    """From each token to the next; a token stands for one value of one tenant, so it finds its rows alone."""
    stored = written.c[name]
    # Without the column's own type: what is exchanged is made already.
    plain: Any = column(stored.name, Text() if isinstance(claims[0][0], str) else LargeBinary())
    there = table(written.name, plain, schema=written.schema)
    statement = update(there).where(plain == bindparam("former")).values({plain: bindparam("later")})
    for step in range(max(map(len, claims)) - 1):
        pairs = [each[step : step + 2] for each in claims if len(each) > step + 1]
        problem: IntegrityError | None = None
        try:
            connection.execute(statement, [{"former": former, "later": later} for former, later in pairs])
        except IntegrityError as error:
            problem = error
        if problem is not None:
            raise named(problem, written) or problem
