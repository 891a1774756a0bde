"""``rebuild``: a tenant's rows, brought under its new index key while the application goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Table, and_, column, inspect, or_, update
from sqlalchemy import table as lightweight
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapper, registry

from fieldvault.context import Name, as_name
from fieldvault.errors import ConfigurationError, NotYet
from fieldvault.sqlalchemy.binding import Binding, binding_of
from fieldvault.sqlalchemy.identity import key_of
from fieldvault.sqlalchemy.recomputing import Recomputer
from fieldvault.sqlalchemy.uniqueness import comparable
from fieldvault.sqlalchemy.writers import StillWriting, is_busy, read, writers_ended

__all__ = ["Rebuilt", "rebuild"]

_PAGE = 500

Progress = Callable[[int], None]


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild met, in rows.

    ``rows`` had been looked at, ``rewritten`` got new tokens or ciphertexts, ``cleared`` lost the token of a
    value that was shredded, ``lost`` have a deterministic value whose index key was destroyed too early.
    ``left`` are not under the new key although everything was looked at again: a row has a value that another
    one has, too (``conflicts`` has table and primary key), or keeps being written.
    ``pending`` says that a transaction from before the rebuild had not ended, whose rows nobody can see yet.
    """

    rows: int = 0
    rewritten: int = 0
    cleared: int = 0
    left: int = 0
    lost: int = 0
    conflicts: set[tuple[str, tuple[Any, ...]]] = field(default_factory=set)
    pending: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether no row of this database needs a former key any more."""
        return self.left == 0 and not self.pending


def rebuild(
    base: type[DeclarativeBase],
    engine: Engine,
    tenant: Name,
    *,
    progress: Progress | None = None,
    patience: float = 60.0,
) -> Rebuilt:
    """Bring all tokens and deterministic ciphertexts of a tenant under its active index key.

    All tables of the base's metadata are seen to, those without a model too. First it waits for transactions
    that are writing already, ``patience`` seconds at most, for they may have written under the former key;
    on MariaDB and MySQL it does so as it comes to the rows. If one does not end, the result is ``pending``.

    Rows are read and written a page at a time, each page in a transaction of its own; a row that the
    application changes meanwhile is left to the application. It may be stopped at any point and called again.
    ``progress`` is told of each page's number of rows. Then everything is read once more at least.

    Raises:
        NotYet: processes may still write under the former key.
        ConfigurationError: the models have no vault, or a table has no primary key or does not say whose its
            rows are.
        ScopeRequired, TenantMismatch, DecryptionError: a row's values are not what the model says.
        KeySuspended, KMSError, KeyStoreError: a key cannot be had.
        sqlalchemy.exc.DBAPIError: the database failed; call again.
    """
    vault, tenant = binding_of(base.metadata).vault, as_name("tenant", tenant)
    state = vault.index_rotation(tenant)
    if not state.is_settled:
        raise NotYet(
            f"until {state.settled_at:%Y-%m-%d %H:%M:%S} UTC processes may write under the former index key "
            f"of tenant {tenant!r}; rebuild after that"
        )
    work = [Recomputer(table, source, tenant, engine.dialect) for table, source in _tables(base)]
    done = Rebuilt()
    touched = [(each.table.name, _schema(engine, each.table), key_of(each.table)[0].name) for each in work]
    if not writers_ended(engine, touched, patience):
        done.pending = True
        return done
    with vault.scope(tenant=tenant):
        try:
            for table in work:
                for page in _pages(engine, table, patience):
                    _rewrite(engine, table, page, done)
                    done.rows += len(page)
                    if progress is not None:
                        progress(len(page))
            left = _look_again(engine, work, done, patience)
            while left and left != done.left:
                # Rows that the application was changing, of which it may have left a part as it was.
                done.left = left
                left = _look_again(engine, work, done, patience)
            done.left = left
        except StillWriting:
            done.pending = True
    done.lost = sum(len(each.lost) for each in work)
    return done


def _look_again(engine: Engine, work: Sequence[Recomputer], done: Rebuilt, patience: float) -> int:
    """Rewrite what is still under a former key; the rows that were."""
    found = 0
    for table in work:
        for page in _pages(engine, table, patience):
            found += sum(bool(changes) for changes in table.changes(page))
            _rewrite(engine, table, page, done)
    return found


def _tables(base: type[DeclarativeBase]) -> Iterator[tuple[Table, Any]]:
    """The tables that have something to rebuild, and what to select their rows from.

    Raises:
        ConfigurationError: one has no primary key, or its rows' tenant stands out of reach.
    """
    binding = binding_of(base.metadata)
    # A model may have its table in another metadata, which was bound to the same vault by itself.
    others = {each for mapper in base.registry.mappers for each in mapper.tables if isinstance(each, Table)}
    bound = {each for each in others if binding_of(each.metadata).current is binding.vault}
    for table in {**dict.fromkeys(base.metadata.tables.values()), **dict.fromkeys(bound)}:
        if any(True for _ in comparable(table)):
            if not key_of(table):
                raise ConfigurationError(
                    f"the table {table.fullname} has no primary key, by which its rows could be rebuilt: "
                    "mark the columns that are one with primary_key=True"
                )
            yield table, _source(table)


def _source(table: Table) -> Any:
    """What to select the rows of a table from, so that they say whose they are."""
    binding = binding_of(table.metadata)
    scope = binding.scopes.get(table)
    if scope is None or scope.tenant is None or scope.tenant.table is table:
        return table
    # In joined inheritance another table of the model says it. A model of fewer tables leaves out fewer rows.
    both = {table, scope.tenant.table}
    joined = [each for each in _mappers(binding) if both <= set(each.tables)]
    if not joined:
        raise ConfigurationError(
            f"the rows of {table.fullname} have their tenant in {scope.tenant}, and no model joins the two "
            "tables"
        )
    return min(joined, key=_breadth).persist_selectable


def _breadth(mapper: Mapper[Any]) -> int:
    return len(mapper.tables)


def _mappers(binding: Binding) -> Iterator[Mapper[Any]]:
    """The mappers of all bases of a metadata."""
    for base in binding.bases:
        known = getattr(base, "registry", None)
        # A class that was mapped imperatively has no base.
        yield from (known if isinstance(known, registry) else inspect(base).registry).mappers


def _schema(database: Engine | Connection, table: Table) -> str | None:
    """The schema in which a database has a table."""
    names = database.get_execution_options().get("schema_translate_map") or {}
    found: str | None = names.get(table.schema, table.schema)
    return found


def _pages(engine: Engine, work: Recomputer, patience: float) -> Iterator[Sequence[Any]]:
    """The tenant's rows; a page is smaller where other tenants' rows were among them."""
    key = key_of(work.table)
    last: tuple[Any, ...] | None = None
    while True:
        statement = work.statement.order_by(*key).limit(_PAGE)
        if last is not None:
            statement = statement.where(_after(key, last))
        page = read(engine, statement, patience)
        own = work.own(page)
        if own:
            yield own
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
        written = [_write_alone(engine, work, row, change, done) for row, change in changes]
    except DBAPIError as error:
        if not is_busy(error):
            raise
        # The next look finds them again.
        return
    for (_, change), was in zip(changes, written, strict=True):
        done.rewritten += was
        done.cleared += was and any(value is None for value in change.values())


def _write_alone(engine: Engine, work: Recomputer, row: Any, change: dict[str, Any], done: Rebuilt) -> bool:
    try:
        with engine.begin() as connection:
            return _write(connection, work, row, change)
    except IntegrityError:
        done.conflicts.add((work.table.name, tuple(row[: len(key_of(work.table))])))
    except DBAPIError as error:
        if not is_busy(error):
            raise
    return False


def _write(connection: Connection, work: Recomputer, row: Any, change: dict[str, Any]) -> bool:
    """Whether the row still was as it had been read, and now has the change."""
    cells = work.cells(row)
    columns = {name: column(name, work.plain[name]) for name in cells}
    key = {each.name: column(each.name, each.type) for each in key_of(work.table)}
    there = lightweight(
        work.table.name, *columns.values(), *key.values(), schema=_schema(connection, work.table)
    )
    as_read = [
        columns[name].is_(None) if cell is None else columns[name] == cell for name, cell in cells.items()
    ]
    same_row = [each == part for each, part in zip(key.values(), row, strict=False)]
    statement = update(there).where(*same_row, *as_read).values(change)
    return connection.execute(statement).rowcount == 1
