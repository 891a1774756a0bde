"""``rebuild``: a tenant's rows, brought under its new index key while the application goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Table, and_, column, or_, update
from sqlalchemy import table as lightweight
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase

from fieldvault.errors import ConfigurationError
from fieldvault.sqlalchemy.binding import binding_of, encrypted_columns
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.deterministic import is_deterministic
from fieldvault.sqlalchemy.identity import key_of
from fieldvault.sqlalchemy.recomputing import Recomputer

__all__ = ["Rebuilt", "rebuild"]

_PAGE = 500

Progress = Callable[[int], None]


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild met, in rows.

    ``rows`` had been looked at, ``rewritten`` got new tokens or ciphertexts, ``cleared`` lost the token of a
    value that was shredded. ``left`` are not under the new key although everything was looked at again: a row
    has a value that another one has, too (``conflicts`` has table and primary key), or keeps being written.
    """

    rows: int = 0
    rewritten: int = 0
    cleared: int = 0
    left: int = 0
    conflicts: set[tuple[str, tuple[Any, ...]]] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Whether no row of this database needs a former key any more."""
        return self.left == 0


def rebuild(
    base: type[DeclarativeBase], engine: Engine, tenant: str, *, progress: Progress | None = None
) -> Rebuilt:
    """Bring all tokens and deterministic ciphertexts of a tenant under its active index key.

    Rows are read and written a page at a time, each page in a transaction of its own; a row that the
    application changes meanwhile is left to the application. It may be stopped at any point and called again.
    ``progress`` is told of each page's number of rows. Then everything is read once more at least.

    Raises:
        ConfigurationError: the models have no vault, or processes may still write under the former key.
        ScopeRequired, TenantMismatch, DecryptionError: a row's values are not what the model says.
        KeySuspended, KMSError, KeyStoreError: a key cannot be had.
    """
    vault = binding_of(base.metadata).vault
    state = vault.index_rotation(tenant)
    if not state.is_settled:
        raise ConfigurationError(
            f"until {state.settled_at:%Y-%m-%d %H:%M:%S} UTC processes may write under the former index key "
            f"of tenant {tenant!r}; rebuild after that"
        )
    done = Rebuilt()
    work = [
        Recomputer(mapper_table, source, tenant, engine.dialect) for mapper_table, source in _tables(base)
    ]
    with vault.scope(tenant=tenant):
        for table in work:
            for page in _pages(engine, table):
                _rewrite(engine, table, page, done)
                done.rows += len(page)
                if progress is not None:
                    progress(len(page))
        left = _look_again(engine, work, done)
        while left and left != done.left:
            # Rows that the application was changing, of which it may have left a part as it was.
            done.left = left
            left = _look_again(engine, work, done)
        done.left = left
    return done


def _look_again(engine: Engine, work: Sequence[Recomputer], done: Rebuilt) -> int:
    """Rewrite what is still under a former key; the rows that were."""
    found = 0
    for table in work:
        for page in _pages(engine, table):
            found += sum(bool(changes) for changes in table.changes(page))
            _rewrite(engine, table, page, done)
    return found


def _tables(base: type[DeclarativeBase]) -> Iterator[tuple[Table, Any]]:
    """The tables that have something to rebuild, and what to select their rows from."""
    seen: set[Table] = set()
    for mapper in base.registry.mappers:
        table = mapper.local_table
        if not isinstance(table, Table) or table in seen:
            continue
        seen.add(table)
        if indexes_of(table) or any(is_deterministic(each.type) for each in encrypted_columns(table)):
            # In joined inheritance another table of the model says whose a row is.
            yield table, mapper.persist_selectable


def _pages(engine: Engine, work: Recomputer) -> Iterator[Sequence[Any]]:
    key = key_of(work.table)
    last: tuple[Any, ...] | None = None
    while True:
        statement = work.statement.order_by(*key).limit(_PAGE)
        if last is not None:
            statement = statement.where(_after(key, last))
        with engine.connect() as connection:
            page = connection.execute(statement).all()
        if page:
            yield page
        if len(page) < _PAGE:
            return
        last = tuple(page[-1][: len(key)])


def _after(key: Sequence[Any], last: Sequence[Any]) -> Any:
    """The rows behind one, in the order of their keys."""
    return or_(
        *(
            and_(
                *(each == part for each, part in zip(key[:place], last, strict=False)),
                key[place] > last[place],
            )
            for place in range(len(key))
        )
    )


def _rewrite(engine: Engine, work: Recomputer, page: Sequence[Any], done: Rebuilt) -> None:
    changes = [(row, change) for row, change in zip(page, work.changes(page), strict=True) if change]
    if not changes:
        return
    try:
        with engine.begin() as connection:
            written = [_write(connection, work, row, change) for row, change in changes]
    except IntegrityError:
        # One row of the page stands against it: the others are written by themselves.
        written = []
        for row, change in changes:
            try:
                with engine.begin() as connection:
                    written.append(_write(connection, work, row, change))
            except IntegrityError:
                done.conflicts.add((work.table.name, tuple(row[: len(key_of(work.table))])))
                written.append(False)
    for (_, change), was in zip(changes, written, strict=True):
        done.rewritten += was
        done.cleared += was and any(value is None for value in change.values())


def _write(connection: Connection, work: Recomputer, row: Any, change: dict[str, Any]) -> bool:
    """Whether the row still was as it had been read, and now has the change."""
    cells = work.cells(row)
    columns = {name: column(name, work.plain[name]) for name in cells}
    key = {each.name: column(each.name, each.type) for each in key_of(work.table)}
    there = lightweight(work.table.name, *columns.values(), *key.values(), schema=work.table.schema)
    as_read = [
        columns[name].is_(None) if cell is None else columns[name] == cell for name, cell in cells.items()
    ]
    same_row = [each == part for each, part in zip(key.values(), row, strict=False)]
    statement = update(there).where(*same_row, *as_read).values(change)
    return connection.execute(statement).rowcount == 1
