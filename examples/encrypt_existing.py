"""Encrypt the personal columns of an existing SQLite database in place, and prove that it worked.

    python examples/encrypt_existing.py shop.sqlite columns.toml [--config fieldvault.toml]

``columns.toml`` names the tables, where each row's tenant (and, if wanted, subject) is, and the personal
columns:

    [Customer]
    tenant = "Country"
    subject = "CustomerId"
    columns = ["FirstName", "LastName", "Phone"]

``uuids = ["id"]`` names columns that the application maps to ``Uuid``, which SQLite keeps as 32 hexadecimal
digits: as a tenant or subject such a column is the UUID's usual text.

Values are sealed as ``Encrypted(type)`` seals them by default: in binary, without padding, in the field
``table.column``, under the vault's suite. Columns that want ``field``, ``storage``, ``suite`` or a blind
index are brought over by the application's own model instead (docs/quickstart.md, 4); ``padding`` begins
when a value is next changed.

It is one transaction: every value is sealed, written, read back through SQLAlchemy's ORM and compared with
what was there, and only then committed. Stopped at any moment, it leaves the old database or the new one;
started again it goes on. At the end the file is rebuilt without its free pages and searched, byte by byte,
for every value that was in those columns.

Stop the application while it runs, and keep in mind that backups made before still hold the plaintext.
"""

from __future__ import annotations

import sqlite3
import sys
import tomllib
import uuid
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Table,
    Uuid,
    and_,
    create_engine,
    event,
    func,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import NullType, TypeEngine

from fieldvault import KeyScope, Vault
from fieldvault.errors import DecryptionError, FieldVaultError, MalformedCiphertext
from fieldvault.sqlalchemy import Encrypted, protect

BATCH = 500
SHORTEST = 6
"""Bytes of the shortest value worth searching for: a shorter one turns up among random bytes by chance."""


class Refused(Exception):
    """The description or the database is not as the migration needs it; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Personal:
    """One table's personal columns, and where its rows' scope is."""

    table: str
    tenant: str
    subject: str | None
    columns: tuple[str, ...]
    uuids: frozenset[str] = frozenset()

    def mapped(self, row: Mapping[str, Any], column: str) -> Any:
        """A stored key, as the application's model has it."""
        return uuid.UUID(row[column]) if column in self.uuids else row[column]

    def owner(self, row: Mapping[str, Any]) -> tuple[str, str | None]:
        """A row's tenant and subject, as the application's model names them.

        Raises:
            Refused: the row has none.
        """
        names: list[str] = []
        for column in (self.tenant, self.subject):
            if column is not None:
                if row[column] is None:
                    raise Refused(f"a row of {self.table} has no {column}: give it one first")
                names.append(str(self.mapped(row, column)))
        return names[0], names[1] if self.subject is not None else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one table."""

    rows: int
    sealed: int
    nulls: int
    already: int
    verified: int


def described(path: Path) -> list[Personal]:
    """The tables that a description names.

    Raises:
        Refused: it is not TOML, or a table in it lacks tenant or columns, or says what is not known here.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{path} is not TOML: {error}") from None
    if not tables:
        raise Refused(f"{path} names no table")
    return [_personal(path, name, entry) for name, entry in tables.items()]


def _personal(path: Path, table: str, entry: object) -> Personal:
    wanted = {
        "tenant": (_is_name, 'tenant = "column"'),
        "subject": (_is_name, 'subject = "column"'),
        "columns": (_are_names, 'columns = ["column", …]'),
        "uuids": (_are_names, 'uuids = ["column", …]'),
    }
    if not isinstance(entry, dict):
        raise Refused(
            f'{path}: {table} is no table; write [{table}], tenant = "column", columns = ["column", …]'
        )
    for name in ("tenant", "columns"):
        if name not in entry:
            raise Refused(f"{path}: table {table} has no {name}; write {wanted[name][1]}")
    for name, value in entry.items():
        if name not in wanted:
            raise Refused(
                f"{path}: table {table} has {name}, which is not known; known are {', '.join(wanted)}"
            )
        is_right, right = wanted[name]
        if not is_right(value):
            raise Refused(f"{path}: table {table}, {name}: write {right}")
    return Personal(
        table,
        entry["tenant"],
        entry.get("subject"),
        tuple(entry["columns"]),
        frozenset(entry.get("uuids", ())),
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_name, value))


class Migration:
    """Encrypts the described columns of one database."""

    def __init__(self, database: Path, personal: Sequence[Personal], vault: Vault) -> None:
        if not database.is_file():
            raise Refused(f"there is no database {database}")
        self.database = database
        self.personal = personal
        self.vault = vault
        self.searched: set[bytes] = set()
        self.short: set[bytes] = set()
        self.engine = create_engine(f"sqlite:///{database}")
        event.listen(self.engine, "connect", _leave_transactions_alone)
        event.listen(self.engine, "begin", _begin_immediately)
        self.plain = MetaData()
        self.plain.reflect(self.engine)
        for each in personal:
            self._check(each)
        self.models = {each.table: self._model(each) for each in personal}

    def run(self) -> dict[str, Outcome]:
        """Seal and verify all tables in one transaction."""
        with self.engine.begin() as connection:
            outcome = {each.table: self._encrypt(connection, each) for each in self.personal}
        self.engine.dispose()
        return outcome

    def rebuild(self) -> None:
        """Write the file anew, without what its free pages, its log and overwritten rows still hold."""
        connection = sqlite3.connect(self.database, isolation_level=None)
        try:
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(statement).fetchall()
        finally:
            connection.close()

    def left(self) -> tuple[list[bytes], list[bytes]]:
        """The values still found in the file.

        More often than clear columns explain, and as often as those explain.
        """
        content = b"".join(path.read_bytes() for path in self.database.parent.glob(f"{self.database.name}*"))
        clear = self._clear_text()
        unexplained: list[bytes] = []
        explained: list[bytes] = []
        for value in self.searched:
            found = content.count(value)
            if found:
                expected = sum(copies * text.count(value) for copies, text in clear.items())
                (unexplained if found > expected else explained).append(value)
        return sorted(unexplained), sorted(explained)

    # -- one table ----------------------------------------------------------------------------------------

    def _check(self, each: Personal) -> None:
        if each.table not in self.plain.tables:
            raise Refused(f"{self.database} has no table {each.table}")
        table = self.plain.tables[each.table]
        wanted = [each.tenant, *([each.subject] if each.subject else []), *each.columns]
        for name in wanted:
            if name not in table.columns:
                raise Refused(f"table {each.table} has no column {name}")
        if not table.primary_key.columns:
            raise Refused(f"table {each.table} has no primary key to find its rows by")
        for name in each.columns:
            if (
                name in (each.tenant, each.subject)
                or name in table.primary_key.columns
                or table.columns[name].foreign_keys
            ):
                raise Refused(f"{each.table}.{name} finds or joins rows, so it has to stay readable")

    def _model(self, each: Personal) -> type[DeclarativeBase]:
        """A mapped class in which the personal columns are encrypted, as the application will have it."""

        class Base(DeclarativeBase):
            pass

        table = self.plain.tables[each.table]
        columns = [
            Column(column.name, self._type(each, column), primary_key=column.primary_key)
            for column in table.columns
        ]
        mapped = Table(each.table, Base.metadata, *columns)
        scope = KeyScope(tenant=each.tenant, subject=each.subject)
        model = type(each.table, (Base,), {"__table__": mapped, "__vault__": scope})
        protect(Base, self.vault)
        return model

    def _type(self, each: Personal, column: Column[Any]) -> TypeEngine[Any]:
        if column.name in each.uuids:
            return Uuid()
        return Encrypted(column.type) if column.name in each.columns else column.type

    def _encrypt(self, connection: Connection, each: Personal) -> Outcome:
        counts = dict.fromkeys(("rows", "sealed", "nulls", "already", "verified"), 0)
        table = self.plain.tables[each.table]
        raw = select(*(type_coerce(column, NullType()).label(column.name) for column in table.columns))
        total = connection.scalar(select(func.count()).select_from(table)) or 0
        for batch in batched(connection.execute(raw).mappings().all(), BATCH):
            truth: dict[tuple[Any, ...], dict[str, Any]] = {}
            for row in batch:
                identity = tuple(each.mapped(row, column.name) for column in table.primary_key)
                truth[identity] = self._encrypt_row(connection, each, table, row, counts)
            counts["verified"] += self._verify(connection, each, truth)
            counts["rows"] += len(batch)
            print(f"\r  {each.table}: {counts['rows']} of {total} rows", end="", file=sys.stderr)
        print(file=sys.stderr)
        return Outcome(**counts)

    def _encrypt_row(
        self,
        connection: Connection,
        each: Personal,
        table: Table,
        row: Mapping[str, Any],
        counts: dict[str, int],
    ) -> dict[str, Any]:
        """Write one row's values sealed; what they were."""
        tenant, subject = each.owner(row)
        truth: dict[str, Any] = {}
        sealed: dict[str, bytes] = {}
        for name in each.columns:
            field, value = f"{each.table}.{name}", row[name]
            if value is None:
                counts["nulls"] += 1
                truth[name] = None
                continue
            if isinstance(value, bytes) and _is_sealed(self.vault, value, field, tenant):
                counts["already"] += 1
                truth[name] = self.vault.decrypt(value, field=field, tenant=tenant)
            else:
                truth[name] = _typed(table.columns[name], value)
                sealed[name] = self.vault.encrypt(truth[name], field=field, tenant=tenant, subject=subject)
                counts["sealed"] += 1
            stored = str(truth[name] if isinstance(value, bytes) else value).encode()
            (self.searched if len(stored) >= SHORTEST else self.short).add(stored)
        if sealed:
            here = and_(*(column == row[column.name] for column in table.primary_key))
            values = {table.columns[name]: type_coerce(blob, LargeBinary()) for name, blob in sealed.items()}
            connection.execute(update(table).where(here).values(values))
        return truth

    def _verify(
        self, connection: Connection, each: Personal, truth: Mapping[tuple[Any, ...], Mapping[str, Any]]
    ) -> int:
        """Read a batch back through the ORM and compare every value with what was there."""
        model = self.models[each.table]
        compared = 0
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            for identity, values in truth.items():
                found = session.get_one(model, identity)
                for name, value in values.items():
                    if getattr(found, name) != value:
                        raise Refused(
                            f"{each.table}.{name} of row {identity} does not read back as it was; nothing "
                            f"was changed"
                        )
                    compared += 1
        return compared

    def _clear_text(self) -> dict[int, bytes]:
        """The text that stays readable in the file, by how often the file holds each cell.

        Once, and once an index.
        """
        personal = {(each.table, name) for each in self.personal for name in each.columns}
        clear: dict[int, list[bytes]] = {}
        with self.engine.connect() as connection:
            clear[1] = [
                str(sql).encode() for (sql,) in connection.exec_driver_sql("SELECT sql FROM sqlite_master")
            ]
            for table in self.plain.tables.values():
                for column in table.columns:
                    if (table.name, column.name) not in personal:
                        copies = 1 + sum(column.name in index.columns for index in table.indexes)
                        cells: Iterable[Any] = connection.scalars(
                            select(type_coerce(column, NullType())).where(column.is_not(None))
                        )
                        clear.setdefault(copies, []).extend(
                            cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells
                        )
        return {copies: b"\x00".join(cells) for copies, cells in clear.items()}


def _is_sealed(vault: Vault, value: bytes, field: str, tenant: str) -> bool:
    """Whether an earlier run has sealed this cell."""
    try:
        vault.decrypt(value, field=field, tenant=tenant)
    except (MalformedCiphertext, DecryptionError):
        return False
    return True


def _typed(column: Column[Any], value: Any) -> Any:
    """A stored cell as the column's type gives it to the application."""
    process: object = column.type.dialect_impl(sqlite.dialect()).result_processor(sqlite.dialect(), None)
    return process(value) if callable(process) else value


def batched(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """``rows`` in runs of at most ``size``."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _leave_transactions_alone(connection: Any, _record: Any) -> None:
    # The driver would begin a transaction only at the first write, after the rows were read.
    connection.isolation_level = None
    connection.execute("PRAGMA secure_delete = ON")


def _begin_immediately(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def report(
    migration: Migration,
    outcome: Mapping[str, Outcome],
    unexplained: Sequence[bytes],
    explained: Sequence[bytes],
) -> None:
    """Print what was done, and what the search of the file found."""
    print(f"{'table':<12}{'rows':>7}{'sealed':>9}{'NULL':>7}{'already':>9}{'read back equal':>17}")
    for name, counts in outcome.items():
        print(
            f""
            f"{name:<12}{counts.rows:>7}{counts.sealed:>9}{counts.nulls:>7}{counts.already:>9}{counts.verified:>17}"
        )
    size = migration.database.stat().st_size
    print(f"looked for {len(migration.searched)} different values of these columns in {size:,} bytes:")
    print(f"  {len(unexplained)} are left behind")
    print(f"  {len(explained)} stand in columns that were not named, exactly as often as the file has them")
    print(f"  {len(migration.short)} more are shorter than {SHORTEST} bytes, which chance alone would find")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when everything was proven, 1 when something is left, 2 when it was refused."""
    parser = ArgumentParser(description="Encrypt personal columns of an existing SQLite database in place.")
    parser.add_argument("database", type=Path)
    parser.add_argument("description", type=Path, help="the TOML file that names tables and columns")
    parser.add_argument(
        "--config", type=Path, default=Path("fieldvault.toml"), help="the vault's configuration"
    )
    given = parser.parse_args(arguments)
    try:
        with Vault.open(given.config) as vault:
            migration = Migration(given.database, described(given.description), vault)
            outcome = migration.run()
            migration.rebuild()
            unexplained, explained = migration.left()
            tenants = sum(1 for _ in vault.tenants())
    except (Refused, FieldVaultError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    report(migration, outcome, unexplained, explained)
    print(f"tenants in the key store: {tenants}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
