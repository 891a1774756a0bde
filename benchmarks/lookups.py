"""One row found by its e-mail among many: the database's index on plaintext, on tokens, on fixed ciphertexts.

As a program it is one process: ``python -m benchmarks.lookups VARIANT fill FOLDER ROWS`` makes the table in a
file and prints nanoseconds; ``… ask FOLDER ROWS LOOKUPS`` prints those of each lookup, as JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import process_time_ns
from typing import Any

from sqlalchemy import Engine, Index, String, create_engine, event, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.measure import Sample, collected, quiet
from benchmarks.models import TENANT, ColumnType, utils_type
from benchmarks.peers import Missing
from benchmarks.processes import in_fresh_process
from benchmarks.report import Row, ratio_row
from benchmarks.world import World
from fieldvault.sqlalchemy import BlindIndex, Encrypted, protect
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.indexing import content_maker

__all__ = ["lookup_rows"]

PLAIN, UTILS = "plaintext", "sqlalchemy-utils, AES-CBC"
BATCH = 10_000
WARM_UP = 20
"""Lookups that are not counted: the first ones load modules, and the upper pages of the index."""

Cells = Callable[[Sequence[str]], Sequence[tuple[Any, ...]]]
"""E-mails to what is stored of them: the encrypted column, and the index where there is one."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A model, and how its columns are filled without the ORM."""

    base: type[DeclarativeBase]
    customer: type[Any]
    cells: Cells


def lookup_rows(*, rows: int, lookups: int, processes: int) -> Iterator[Row]:
    """The rows for lookups: each variant's table is made once, then asked by so many processes in turn."""
    medians: dict[str, list[float]] = {}
    tails: dict[str, list[float]] = {}
    fills: dict[str, Sample] = {}
    absent: dict[str, str] = {}
    with TemporaryDirectory(prefix="fieldvault-benchmark-") as folder:
        for variant in VARIANTS:
            answer = in_fresh_process("lookups", variant, "fill", folder, rows)
            if "missing" in answer:
                absent[variant] = answer["missing"]
            else:
                fills[variant] = Sample((answer["took"],))
        for _ in range(processes):
            for variant in fills:
                took = in_fresh_process("lookups", variant, "ask", folder, rows, lookups)["took"]
                medians.setdefault(variant, []).append(median(took))
                tails.setdefault(variant, []).append(quantiles(took, n=20, method="inclusive")[-1])
    section = f"Lookup by e-mail among {rows:,} rows"
    for which, taken in (("median", medians), ("95th percentile", tails)):
        samples = quiet(taken)
        for variant, sample in samples.items():
            yield ratio_row(section, f"{variant}, {which}", sample, samples[PLAIN], unit=f"× {PLAIN}")
    for variant, fill in fills.items():
        yield ratio_row(
            section,
            f"{variant}, filling the table",
            fill,
            fills[PLAIN],
            unit=f"× {PLAIN}",
            scale="ms",
            note=_NOTES.get(variant, ""),
        )
    for variant, reason in absent.items():
        yield Row(section, variant, None, f"× {PLAIN}", note=reason)


@contextmanager
def _plaintext(folder: Path) -> Iterator[Searched]:  # noqa: ARG001 - it has no keys to keep
    yield _searched_by_itself(String)


@contextmanager
def _utils(folder: Path) -> Iterator[Searched]:
    # Its other engines cannot be searched: they give a value another ciphertext each time.
    file = folder / "utils.key"
    if not file.exists():
        file.write_text(os.urandom(32).hex(), encoding="ascii")
    made = utils_type("AesEngine", file.read_text(encoding="ascii"))
    filler: Any = made()
    filler._update_key()  # noqa: SLF001 - as its column does for each value, here once
    yield _searched_by_itself(made, filler.engine.encrypt)


@contextmanager
def _fieldvault(folder: Path) -> Iterator[Searched]:
    with ExitStack() as stack:
        made = World(folder)
        stack.callback(made.engine.dispose)
        vault = stack.enter_context(made.vault())
        stack.enter_context(vault.scope(tenant=TENANT))

        class Base(DeclarativeBase):
            pass

        class Customer(Base):
            __tablename__ = "customers"
            id: Mapped[int] = mapped_column(primary_key=True)
            tenant_id: Mapped[str]
            email: Mapped[str] = mapped_column(Encrypted(String))
            email_index: Mapped[bytes | None] = mapped_column(BlindIndex("email", normalize="email"))

        protect(Base, vault)
        table: Any = Customer.__table__
        Index("by_email", table.c.email_index)
        (index,) = indexes_of(table)
        content = content_maker(index, sqlite.dialect())

        def cells(emails: Sequence[str]) -> Sequence[tuple[Any, ...]]:
            keys = vault.ring.index_keys(TENANT)
            contents = [content([email]) for email in emails]
            tokens = [None if each is None else keys.token(index.spec, each) for each in contents]
            field = table.c.email.type.field
            return list(zip(vault.encrypt_many(emails, field=field, tenant=TENANT), tokens, strict=True))

        yield Searched(Base, Customer, cells)


def _searched_by_itself(column_type: ColumnType, seal: Callable[[str], str] = str) -> Searched:
    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[str]
        email: Mapped[str] = mapped_column(column_type())

    table: Any = Customer.__table__
    Index("by_email", table.c.email)
    return Searched(Base, Customer, lambda emails: [(seal(email),) for email in emails])


VARIANTS: Mapping[str, Callable[[Path], AbstractContextManager[Searched]]] = {
    PLAIN: _plaintext,
    "fieldvault, BlindIndex": _fieldvault,
    UTILS: _utils,
}
"""By name; each is a context manager for its model, with its keys in a folder, and may raise ``Missing``."""

_NOTES = {UTILS: "its key is set once for all rows, where its column sets it for each value"}


def _email(number: int) -> str:
    return f"grace.hopper{number:08d}@example.com"


def _fill(searched: Searched, database: Path, rows: int) -> int:
    """Make the table: cells in batches, sent by the driver's own ``executemany``; the index at the end."""
    table: Any = searched.customer.__table__
    (index,) = table.indexes
    (indexed,) = index.columns
    columns = [column.name for column in table.columns]
    marks = ", ".join("?" for _ in columns)
    begun = process_time_ns()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute(f"CREATE TABLE customers (id INTEGER PRIMARY KEY, {', '.join(columns[1:])})")
        for first in range(0, rows, BATCH):
            numbers = range(first, min(first + BATCH, rows))
            cells = searched.cells([_email(number) for number in numbers])
            connection.executemany(
                f"INSERT INTO customers VALUES ({marks})",  # noqa: S608 - question marks
                [(number, TENANT, *cell) for number, cell in zip(numbers, cells, strict=True)],
            )
        connection.execute(f"CREATE INDEX {index.name} ON customers ({indexed.name})")
    connection.close()
    return process_time_ns() - begun


def _ask(searched: Searched, database: Path, rows: int, lookups: int) -> list[int]:
    """Look so many rows up, each in a session of its own, and read the e-mail that was looked for."""
    engine = create_engine(f"sqlite:///{database}")
    chosen = Random(20).choices(range(rows), k=WARM_UP + lookups)  # noqa: S311 - no secret
    _check_plan(engine, searched, _email(chosen[0]))
    taken: list[int] = []
    with collected():
        for number in chosen:
            email = _email(number)
            begun = process_time_ns()
            found = _lookup(engine, searched, email)
            taken.append(process_time_ns() - begun)
            if found != (number, email):
                raise AssertionError("another row than the one that was looked for")
    engine.dispose()
    return taken[WARM_UP:]


def _lookup(engine: Engine, searched: Searched, email: str) -> tuple[int, str]:
    with Session(engine) as session:
        customer = session.scalars(select(searched.customer).where(searched.customer.email == email)).one()
        return customer.id, customer.email


def _check_plan(engine: Engine, searched: Searched, email: str) -> None:
    """Look once, so that everything is compiled; fail if the database did not use its index."""
    sent: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    _lookup(engine, searched, email)
    event.remove(engine, "before_cursor_execute", note)
    ((statement, parameters),) = sent
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    if not any("USING INDEX by_email" in str(step) for step in plan):
        raise AssertionError("a lookup read the whole table")


def main() -> None:
    """Fill or ask one variant's table, and print what it took."""
    variant, work, name, rows, *lookups = sys.argv[1:]
    folder = Path(name)
    database = folder / f"{list(VARIANTS).index(variant)}.db"
    try:
        with VARIANTS[variant](folder) as searched:
            answer: dict[str, Any]
            if work == "fill":
                answer = {"took": _fill(searched, database, int(rows))}
            else:
                answer = {"took": _ask(searched, database, int(rows), int(lookups[0]))}
    except Missing as error:
        answer = {"missing": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
