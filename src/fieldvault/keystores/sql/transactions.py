"""Transactions of ``SQLKeyStore``.

Begun so that they cannot deadlock needlessly, tried again when the database undid them, failing in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from fieldvault.errors import KeyStoreError, KeyStoreRefused
from fieldvault.forks import in_forked_children
from fieldvault.keystores.sql import engines
from fieldvault.keystores.sql.engines import check_engine
from fieldvault.keystores.sql.schema import CONSTRAINTS

__all__ = ["Transactions"]

T = TypeVar("T")

_ATTEMPTS = 12

_SECONDS = 30
"""How long what was undone is tried again, and another's change of the tables waited for."""

_NO_FILE = "unable to open database file"

_LOCK_NUMBER = 0x6669656C64766C74
"""The name, in PostgreSQL a number, of the lock of whoever changes the tables."""

# PostgreSQL: serialization failure, deadlock. MariaDB: deadlock, lock wait timeout, record changed since
# read. SQLite: busy, locked. In each the database has undone the transaction, or we do.
_UNDONE_STATES = frozenset({"40001", "40P01"})
_UNDONE_CODES = frozenset({1213, 1205, 1020})
_SQLITE_BUSY = frozenset({5, 6})


# PostgreSQL: no permission, no such table, no such schema. MariaDB: the same, and a login refused.
_REFUSED_STATES = frozenset({"42501", "42P01", "3F000"})
_REFUSED_CODES = frozenset({1044, 1045, 1049, 1142, 1143, 1146, 1698, 4151})
_REFUSED_LOGINS = (
    "password authentication failed",
    "certificate authentication failed",
    "is not permitted to log in",
    "no pg_hba.conf entry",
    "permission denied for database",
    '" does not exist',
)
"""How PostgreSQL refuses a connection, in English: its library tells no code of that."""


# What drivers raise beside their errors, mostly for text that the database's encoding has no bytes for. The
# exceptions hold that text.
_UNTOLD = (ValueError, TypeError, OverflowError)


def _undone(error: BaseException) -> bool:
    """Whether nothing of the transaction was done, so that another try is safe and may succeed."""
    if isinstance(error, IntegrityError):
        # Two processes had the same idea; the next run sees the other's row and answers for itself.
        return True
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    state, code = _told(error)
    return state in _UNDONE_STATES or code in _UNDONE_CODES or _locked(error)


def _refused(error: BaseException) -> bool:
    """Whether the server is there and refuses: trying again is in vain until somebody mends something."""
    if not isinstance(error, DBAPIError):
        return False
    state, code = _told(error)
    if state is None and any(words in str(error.orig) for words in _REFUSED_LOGINS):
        return True
    return state in _REFUSED_STATES or code in _REFUSED_CODES


def _in_fields(original: BaseException) -> bool:
    """Whether the driver, as pg8000 does, passes on what PostgreSQL sends, rows among it, by letters."""
    return bool(original.args) and isinstance(original.args[0], Mapping)


def _told(error: DBAPIError) -> tuple[str | None, int | None]:
    """The SQLSTATE, where the driver tells it, and the number that MariaDB's drivers begin with."""
    original = error.orig
    first = original.args[0] if original is not None and original.args else None
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if isinstance(first, Mapping):
        state = state or first.get("C")
    return (state if isinstance(state, str) else None), (first if isinstance(first, int) else None)


def _locked(error: BaseException) -> bool:
    """Whether another connection held the lock of an SQLite file."""
    original = error.orig if isinstance(error, DBAPIError) else None
    return getattr(original, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BUSY


class Transactions:
    """Runs work on an engine; the only place that sees the database's errors.

    Raises:
        ConfigurationError: no engine of a database that the store knows.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = check_engine(engine)
        self._dialect = engine.dialect.name
        # A child opens connections of its own; the inherited ones are the parent's.
        in_forked_children(engine, lambda inherited: inherited.dispose(close=False))

    def read(self, work: Callable[[Connection], T]) -> T:
        """``work`` in a connection, for reading."""
        return self._guarded(self.engine.connect, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """``work`` in one transaction, all or nothing."""
        return self._guarded(self._writing, work)

    def define(self, work: Callable[[Connection], T]) -> T:
        """``work`` that makes or changes tables, one process at a time."""
        return self._guarded(self._defining, work)

    def truncate_log(self) -> None:
        """On SQLite in WAL mode, copy the log into the database and cut it.

        What was overwritten in the database is still in the log until then.

        Raises:
            KeyStoreError: another connection reads on, from the log, for longer than the busy timeout.
        """
        if self._dialect != "sqlite":
            return
        problem = "another connection kept its log in use"
        try:
            pooled = self.engine.raw_connection()
            try:
                # On the driver's connection: an engine's own listener may begin a transaction on any other.
                busy = pooled.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                pooled.close()
        except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            busy, problem = True, _words(error)
        if busy:
            raise KeyStoreError(
                f"what was destroyed is still in the write-ahead log of the key store: {problem}; ask again"
            )

    def _guarded(
        self, connect: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], T]
    ) -> T:
        def run() -> T:
            with connect() as connection:
                return work(connection)

        try:
            return Retrying(
                retry=retry_if_exception(_undone),
                wait=wait_random_exponential(multiplier=0.005, max=0.5),
                stop=stop_after_attempt(_ATTEMPTS) | stop_after_delay(self._patience()),
                reraise=True,
            )(run)
        except SQLAlchemyError as error:
            problem = _words(error)
            kind = KeyStoreRefused if _refused(error) else KeyStoreError
            if _locked(error):
                problem += (
                    f": another connection has been writing to {self.engine.url.database} for too long; if "
                    "that is the application's own database, give the key store a file of its own"
                )
            if self._dialect == "sqlite" and _NO_FILE in problem:
                problem += (
                    f" {self.engine.url.database}; its folder has to be there, and this user needs to write "
                    "in it"
                )
        except _UNTOLD as error:
            kind, problem = KeyStoreError, f"its driver failed with {type(error).__name__}"
        raise kind(f"the key store failed: {problem}")

    def _patience(self) -> float:
        # A try on SQLite waits for the lock by itself; one that did so to the end is not repeated.
        return engines.BUSY_SECONDS * 0.9 if self._dialect == "sqlite" else _SECONDS

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            if self._dialect == "postgresql":
                # Every decision is made under a lock, and has to see what was committed while it waited.
                connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                if self._dialect == "sqlite":
                    self._begin_sqlite(connection)
                yield connection

    @contextmanager
    def _defining(self) -> Iterator[Connection]:
        with (
            self.engine.connect() as connection,
            self._defining_alone(connection),
            connection.begin(),
        ):
            if self._dialect == "sqlite":
                self._begin_sqlite(connection)
            elif self._dialect == "postgresql":
                # CREATE TABLE IF NOT EXISTS is no protection from a second process that does the same.
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
            yield connection

    @contextmanager
    def _defining_alone(self, connection: Connection) -> Iterator[None]:
        """On MariaDB, which commits at each CREATE and ALTER, hold a lock over all of it."""
        if self._dialect not in ("mysql", "mariadb"):
            yield
            return
        name = {"prefix": "fieldvault ", "seconds": _SECONDS}
        taken = connection.scalar(text("SELECT GET_LOCK(CONCAT(:prefix, MD5(DATABASE())), :seconds)"), name)
        connection.rollback()
        if not taken:
            raise KeyStoreError("another process has been changing the key store's tables for too long")
        try:
            yield
        finally:
            connection.scalar(text("SELECT RELEASE_LOCK(CONCAT(:prefix, MD5(DATABASE())))"), name)

    def _begin_sqlite(self, connection: Connection) -> None:
        # Overwrites what is deleted, a wiped key among it, in place of leaving it in free pages, and in a
        # rollback journal that is kept.
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
        connection.exec_driver_sql("PRAGMA journal_size_limit = 0")
        # The write lock comes first: a transaction that reads first and writes later fails at once, whatever
        # the timeout, if another has written in between.
        if not getattr(connection.connection.dbapi_connection, "in_transaction", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _words(error: Exception) -> str:
    """What the driver said, in one line.

    SQLAlchemy's message and attributes quote parameters, and a database's details rows, wrapped keys among
    them.
    """
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(original, SQLAlchemyError):
        return type(original).__name__
    state, code = _told(error) if isinstance(error, DBAPIError) else (None, None)
    # MariaDB quotes the row that is there already, each of them a value that does not fit its column.
    duplicate = isinstance(error, IntegrityError) and code is not None
    if duplicate or isinstance(error, DataError) or _in_fields(original):
        facts = [state, code, next((name for name in CONSTRAINTS if name in str(original)), None)]
        told = ", ".join(str(each) for each in facts if each is not None)
        return f"{type(original).__name__} ({told})" if told else type(original).__name__
    return f"{type(original).__name__}: {str(original).partition(chr(10))[0]}"
