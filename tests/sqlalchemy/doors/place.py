"""Where a door is tried: a database behind one driver, a vault, and eyes on what is sent and stored."""

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytest
from sqlalchemy import Engine, Table, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Session

from fieldvault import Vault
from fieldvault.envelope import Envelope, from_text
from fieldvault.errors import FieldVaultError, UnsupportedQuery
from fieldvault.sqlalchemy import Encrypted
from fieldvault.sqlalchemy.binding import encrypted_columns
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.indexing import content_maker

MARK = "Plaintext"

Owned = tuple[str, str | None, Any]
"""Tenant, subject and value of a stored cell."""


def plain(name: str) -> str:
    """Return a value that is known wherever it turns up."""
    return f"{MARK} of {name}, 南京路 88"


class Place:
    """A database behind one driver, the models of a test's module in it.

    An asynchronous driver has ``asynchronous`` and ``runner``; its ``engine`` is the synchronous face.
    """

    def __init__(
        self, driver: str, engine: Engine, asynchronous: AsyncEngine | None, runner: asyncio.Runner | None
    ) -> None:
        self.driver = driver
        self.engine = engine
        self.asynchronous = asynchronous
        self._runner = runner
        self.sent: list[tuple[str, Any]] = []
        self.says: str | None = None
        self._looking = False
        event.listen(engine, "before_cursor_execute", self._note)

    def use(self, vault: Vault, base: type[DeclarativeBase]) -> None:
        """Start a test: with an empty vault, and nothing sent."""
        self.vault = vault
        self.base = base
        self.sent.clear()
        self.says = None

    def run(self, work: Callable[[], Any]) -> Any:
        """Do what asks for a synchronous engine, or await what does not."""
        if self._runner is None or self.asynchronous is None:
            return work()
        engine = self.asynchronous

        async def awaited() -> Any:
            if inspect.iscoroutinefunction(work):
                return await work()
            async with AsyncSession(engine) as session:
                return await session.run_sync(lambda _: work())

        return self._runner.run(awaited(), context=contextvars.copy_context())

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return "mysql" if self.engine.dialect.name == "mariadb" else self.engine.dialect.name

    def save(self, *objects: object) -> None:
        """Add objects in a session of their own, and commit."""
        with Session(self.engine) as session:
            session.add_all(objects)
            session.commit()

    def raw(self, table: Table) -> list[dict[str, Any]]:
        """Read a table as it is in the database, by column."""
        quote = self.engine.dialect.identifier_preparer
        names = [column.name for column in table.columns]
        statement = f"SELECT {', '.join(map(quote.quote, names))} FROM {quote.format_table(table)}"
        self._looking = True
        try:
            with self.engine.connect() as connection:
                rows = connection.exec_driver_sql(statement).all()
        finally:
            self._looking = False
        return [dict(zip(names, row, strict=True)) for row in rows]

    def stored(self, model: Any) -> dict[Any, dict[str, Owned | None]]:
        """Return whose each stored cell of a table is and what it says, by primary key and column.

        Each is a whole, canonical ciphertext; the vault opens it under the column's field. The tokens of the
        table's blind indexes are those of the values, made under the tenant's index key.
        """
        table: Table = model if isinstance(model, Table) else model.__table__
        keys = {
            info.key_id: (info.tenant, info.subject, info.purpose)
            for tenant in self.vault.tenants()
            for info in self.vault.keys(tenant)
        }
        (key,) = table.primary_key.columns
        found: dict[Any, dict[str, Owned | None]] = {}
        for row in self.raw(table):
            cells = found[row[key.name]] = {}
            for column in encrypted_columns(table):
                type_ = cast(Encrypted, column.type)
                cell = row[column.name]
                if cell is None:
                    cells[column.name] = None
                    continue
                assert isinstance(cell, str) == (type_.storage == "text")
                blob = from_text(cell) if isinstance(cell, str) else bytes(cell)
                envelope = Envelope.parse(blob)
                assert envelope.serialize() == blob
                tenant, subject, purpose = keys[envelope.key_id]
                assert purpose == "data"
                field = str(type_.field)
                value = self.vault.decrypt(blob, field=field, tenant=tenant, subject=subject)
                cells[column.name] = (tenant, subject, value)
            self._check_tokens(table, row, cells)
        return found

    def _check_tokens(self, table: Table, row: Mapping[str, Any], cells: Mapping[str, Owned | None]) -> None:
        for index in indexes_of(table):
            owned = [cell for cell in (cells[source.name] for source in index.sources) if cell is not None]
            token = row[index.column.name]
            if len(owned) < len(index.sources):
                assert token is None
                continue
            ((tenant, _, _), *_) = owned
            content = content_maker(index, self.engine.dialect)([value for _, _, value in owned])
            assert content is not None
            assert bytes(token) == self.vault.ring.index_keys(tenant).token(index.spec, content)

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """Return all tables of the models as they are in the database."""
        return {table.name: self.raw(table) for table in self.base.metadata.sorted_tables}

    @contextmanager
    def refuses(
        self, way_out: str, error: type[FieldVaultError] = UnsupportedQuery
    ) -> Iterator[pytest.ExceptionInfo[FieldVaultError]]:
        """Expect a refusal that names a way out, before anything is sent, and quotes no value."""
        before = self.everything()
        sent = len(self.sent)
        with pytest.raises(error, match=way_out) as caught:
            yield caught
        assert self.sent[sent:] == []
        assert MARK not in str(caught.value)
        assert self.everything() == before
        self.says = str(caught.value)

    def check_no_plaintext(self) -> None:
        """Fail if a value was sent or is stored in the clear."""
        assert [statement for statement, parameters in self.sent if _has_mark((statement, parameters))] == []
        assert not _has_mark(self.everything())

    def _note(self, _: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not self._looking:
            self.sent.append((statement, parameters))


def _has_mark(value: Any) -> bool:
    if isinstance(value, str):
        return MARK in value
    if isinstance(value, bytes | bytearray | memoryview):
        return MARK.encode() in bytes(value)
    if isinstance(value, Mapping):
        return any(map(_has_mark, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_mark, value))
