"""Waiting for transactions that were writing already, so that what is read next has what they wrote."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import not_
from typing import Any

from sqlalchemy import Connection, Engine, column, false, func, select, update
from sqlalchemy import table as lightweight
from sqlalchemy.exc import DBAPIError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    wait_exponential,
)

__all__ = ["StillWriting", "is_busy", "read", "writers_ended"]

# PostgreSQL: serialization failure, deadlock, lock not available. MariaDB: deadlock, lock wait timeout,
# record changed since read. SQLite: busy, locked.
_STATES = frozenset({"40001", "40P01", "55P03"})
_CODES = frozenset({1213, 1205, 1020})
_SQLITE = frozenset({5, 6})

_LOCKED_FOR = 1
"""Seconds that a page of rows stays locked at most, on MariaDB and MySQL, while one of them is waited for."""


class StillWriting(Exception):
    """A transaction that was writing already did not end in time."""


def is_busy(error: BaseException) -> bool:
    """Whether the database undid something because another transaction was in the way."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    said: Any = error.orig
    state = getattr(said, "sqlstate", None) or getattr(said, "pgcode", None)
    code = said.args[0] if getattr(said, "args", ()) else None
    return (
        state in _STATES
        or (isinstance(code, int) and code in _CODES)
        or getattr(said, "sqlite_errorcode", 0) & 0xFF in _SQLITE
    )


def writers_ended(engine: Engine, tables: Sequence[tuple[str, str | None, str]], patience: float) -> bool:
    """Wait until each transaction that is writing now has ended, ``patience`` seconds at most; whether so.

    ``tables`` are those of interest: name, schema and a column of each. On PostgreSQL all transactions of
    the server are waited for, and nobody is held up; on SQLite whoever holds the file. On MariaDB and MySQL
    nobody is waited for here: ``read`` does that row by row.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            # The snapshot's own end leaves out transactions that began after the last one that ended.
            now = connection.execute(select(func.txid_current())).scalar_one()
        ended = partial(_all_ended_up_to, engine, now)
    elif engine.dialect.name == "sqlite":
        ended = partial(_nobody_holds, engine, tables)
    else:
        return True
    return Retrying(
        retry=retry_if_result(not_),
        wait=wait_exponential(multiplier=0.01, max=1),
        stop=stop_after_delay(patience),
        retry_error_callback=_gave_up,
    )(ended)


def _gave_up(_: RetryCallState) -> bool:
    return False


def _all_ended_up_to(engine: Engine, number: int) -> bool:
    with engine.connect() as connection:
        oldest = select(func.txid_snapshot_xmin(func.txid_current_snapshot()))
        return bool(connection.execute(oldest).scalar_one() > number)


def _nobody_holds(engine: Engine, tables: Sequence[tuple[str, str | None, str]]) -> bool:
    try:
        for name, schema, key in tables:
            there = lightweight(name, column(key), schema=schema)
            with engine.connect() as connection:
                # What BEGIN IMMEDIATE does, whatever transaction the driver or a listener has begun.
                connection.execute(update(there).where(false()).values({key: there.c[key]}))
                connection.rollback()
    except DBAPIError as error:
        if not is_busy(error):
            raise
        return False
    return True


def read(engine: Engine, statement: Any, patience: float) -> Sequence[Any]:
    """Read rows, none of which a transaction is writing that began before.

    On MariaDB and MySQL by waiting for each such row; elsewhere ``writers_ended`` has done so.

    Raises:
        StillWriting: one is still being written after ``patience`` seconds.
    """
    if engine.dialect.name not in ("mysql", "mariadb"):
        with engine.connect() as connection:
            return connection.execute(statement).all()
    attempts = Retrying(
        retry=retry_if_exception(is_busy),
        wait=wait_exponential(multiplier=0.01, max=1),
        stop=stop_after_delay(patience),
        reraise=True,
    )
    try:
        return attempts(_read_and_wait, engine, statement)
    except DBAPIError as error:
        if not is_busy(error):
            raise
    raise StillWriting


def _read_and_wait(engine: Engine, statement: Any) -> Sequence[Any]:
    # Read committed: the gaps between the rows are not locked.
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        usual = connection.exec_driver_sql("SELECT @@SESSION.innodb_lock_wait_timeout").scalar_one()
        _wait_for_locks(connection, _LOCKED_FOR)
        try:
            return connection.execute(statement.with_for_update(read=True)).all()
        finally:
            _wait_for_locks(connection, usual)


def _wait_for_locks(connection: Connection, seconds: int) -> None:
    connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {seconds:d}")
