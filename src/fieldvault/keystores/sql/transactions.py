"""Transactions of ``SQLKeyStore``.

Begun so that they cannot deadlock needlessly, tried again when the database undid them, failing in one way.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, make_url, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from fieldvault.errors import ConfigurationError, KeyStoreError
from fieldvault.keystores.sql.schema import meta

__all__ = ["Transactions", "anchored", "open_engine"]

T = TypeVar("T")

_BUSY_SECONDS = 30
_ATTEMPTS = 12

# PostgreSQL: serialization failure, deadlock; MariaDB: deadlock, lock wait timeout. In each the database has
# undone the transaction.
_UNDONE_STATES = frozenset({"40001", "40P01"})
_UNDONE_CODES = frozenset({1213, 1205, 1020})


def open_engine(url: str) -> Engine:
    """An engine of our own for ``url``.

    Raises:
        ConfigurationError: no URL, a driver that is not installed, or SQLite in memory.
    """
    problem: str
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, hide_parameters=True, pool_pre_ping=True)
        if parsed.database and parsed.database != ":memory:" and "mode=memory" not in url:
            return create_engine(parsed, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})
        problem = "SQLite in memory is one database a connection; use MemoryKeyStore, or a file"
    except ModuleNotFoundError as error:
        problem = (
            f"the key store's database driver {error.name} is not installed; "
            "install the extra fieldvault[postgresql] or fieldvault[mariadb]"
        )
    except (ArgumentError, NoSuchModuleError):
        problem = "the key store wants a database URL such as sqlite:///keys.db or postgresql+psycopg://user@host/name"
    raise ConfigurationError(problem)


def anchored(url: str, folder: Path) -> str:
    """``url`` with the path of a SQLite file made relative to ``folder``; other URLs as they are."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return url
    if (
        parsed.get_backend_name() != "sqlite"
        or not parsed.database
        or parsed.database.startswith((":memory:", "file:"))
    ):
        return url
    return parsed.set(database=str(folder / parsed.database)).render_as_string(hide_password=False)


def _undone(error: BaseException) -> bool:
    """Whether the database undid the whole transaction, so that another try is safe and may succeed."""
    if isinstance(error, IntegrityError):
        # Two processes had the same idea; the next run sees the other's row and answers for itself.
        return True
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    original = error.orig
    code = original.args[0] if original is not None and original.args else None
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return state in _UNDONE_STATES or code in _UNDONE_CODES or "database is locked" in str(original)


class Transactions:
    """Runs work on an engine; the only place that sees the database's errors."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        _forget_connections_in_children(engine)

    def read(self, work: Callable[[Connection], T]) -> T:
        """``work`` in a connection, for reading."""
        return self._guarded(self._reading, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """``work`` in one transaction, all or nothing."""
        return self._guarded(self._writing, work)

    def define(self, work: Callable[[Connection], T]) -> T:
        """``work`` that makes or changes tables.

        Raises: ConfigurationError: the engine commits each statement by itself, so nothing here would be all
        or nothing.
        """
        if self.read(lambda connection: connection.get_isolation_level()) == "AUTOCOMMIT":
            raise ConfigurationError(
                "the key store's engine has the isolation level AUTOCOMMIT; pass one with transactions"
            )
        return self._guarded(self._defining, work)

    def truncate_log(self) -> None:
        """On SQLite in WAL mode.

        Copy the log into the database and cut it, so that overwritten pages are not left in it.
        """
        if self.is_sqlite:
            self.read(lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all())

    def _guarded(self, run: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]) -> T:
        try:
            return Retrying(
                retry=retry_if_exception(_undone),
                wait=wait_random_exponential(multiplier=0.005, max=0.5),
                stop=stop_after_attempt(_ATTEMPTS) | stop_after_delay(_BUSY_SECONDS),
                reraise=True,
            )(run, work)
        except SQLAlchemyError as error:
            # The driver's own words only: SQLAlchemy's message and attributes quote parameters, wrapped keys
            # among them.
            original = error.orig if isinstance(error, DBAPIError) else None
            problem = (
                f"{type(error).__name__}" if original is None else f"{type(original).__name__}: {original}"
            )
        raise KeyStoreError(f"the key store failed: {problem}")

    def _reading(self, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    def _writing(self, work: Callable[[Connection], T]) -> T:
        with self.engine.begin() as connection:
            if self.is_sqlite:
                self._prepare_sqlite(connection)
                # Taking the write lock with the first statement: a transaction that reads first and writes
                # later fails at once, whatever the timeout, if another has written in between.
                connection.execute(update(meta).where(meta.c.name == "generation").values(value=meta.c.value))
            return work(connection)

    def _defining(self, work: Callable[[Connection], T]) -> T:
        with self.engine.begin() as connection:
            if self.is_sqlite:
                self._prepare_sqlite(connection)
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if self.engine.dialect.name == "postgresql":
                # CREATE TABLE IF NOT EXISTS is no protection from a second process that does the same.
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:number)"), {"number": 0x6669656C64766C74}
                )
            return work(connection)

    def _prepare_sqlite(self, connection: Connection) -> None:
        # Overwrites what is deleted, a wiped key among it, in place of leaving it in free pages.
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def _forget_connections_in_children(engine: Engine) -> None:
    """Have a forked child open connections of its own; the inherited ones are the parent's."""
    if hasattr(os, "register_at_fork"):
        reference = weakref.ref(engine)

        def child() -> None:
            alive = reference()
            if alive is not None:
                alive.dispose(close=False)

        os.register_at_fork(after_in_child=child)
