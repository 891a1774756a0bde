"""Engines that ``SQLKeyStore`` can work with, from a URL or passed in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from fieldvault.errors import ConfigurationError
from fieldvault.keystores.sql.stalls import bound_waits, limits

__all__ = ["BUSY_SECONDS", "anchored", "check_engine", "check_transactions", "open_engine"]

BUSY_SECONDS = 5.0
"""How long another's write lock on an SQLite file is waited for, unless the URL says ``?timeout=…``.

The key store's own writes take milliseconds. Whoever holds the lock for longer is somebody else: mostly the
application, in whose transaction the key is wanted, and which waits for it in turn.
"""

_TESTED: Mapping[str, tuple[str, str]] = {
    "postgresql": ("postgresql+psycopg://", "postgresql"),
    "mysql": ("mysql+pymysql://", "mariadb"),
    "mariadb": ("mariadb+pymysql://", "mariadb"),
}
"""How a URL names the driver that is tested, and the extra that brings it."""

_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")
_WANTED = (
    "the key store wants a database URL such as sqlite:///keys.db or postgresql+psycopg://user@host/name"
)


def open_engine(url: str) -> Engine:
    """An engine of our own for ``url``.

    Raises:
        ConfigurationError: no URL, or a driver that is not installed.
    """
    parsed = _parsed(url)
    problem: str
    try:
        if parsed.get_backend_name() == "sqlite":
            # One pool for whatever the name stands for; SQLAlchemy's own choice differs for memory.
            pool = None if parsed.get_dialect().is_async else QueuePool
            options = {} if "timeout" in parsed.query else {"timeout": BUSY_SECONDS}
            return create_engine(parsed, hide_parameters=True, connect_args=options, poolclass=pool)
        return bound_waits(
            create_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=_wanted(parsed))
        )
    except ModuleNotFoundError as error:
        problem = f"the key store's database driver {error.name} is not installed"
        if parsed.get_backend_name() in _TESTED:
            scheme, extra = _TESTED[parsed.get_backend_name()]
            problem += f"; install fieldvault[{extra}], and let the URL begin with {scheme}"
    except (ArgumentError, NoSuchModuleError, ValueError):
        problem = _WANTED
    raise ConfigurationError(problem)


def _wanted(url: URL) -> dict[str, Any]:
    """What the driver is told where the URL does not."""
    wanted = limits(url)
    if url.get_driver_name() in ("psycopg", "psycopg2") and "client_encoding" not in url.query:
        # From a server that knows no encoding, the driver would pass on bytes.
        wanted["client_encoding"] = "utf8"
    return wanted


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        pass
    raise ConfigurationError(_WANTED)


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


def check_engine(engine: object) -> Engine:
    """``engine``, if it is one of a database that the store knows, and not an asynchronous one.

    Raises:
        ConfigurationError: otherwise.
    """
    if not isinstance(engine, Engine) or engine.dialect.is_async:
        raise ConfigurationError("the key store wants a URL or an Engine with a synchronous driver")
    if engine.dialect.name not in _DIALECTS:
        raise ConfigurationError(
            f"the key store knows SQLite, PostgreSQL, MariaDB and MySQL, not {engine.dialect.name}"
        )
    return engine


def check_transactions(connection: Connection) -> None:
    """Refuse a connection on which several statements are not one step.

    Raises:
        ConfigurationError: each statement commits by itself, others' uncommitted rows are seen, it is SQLite
            in memory, or the database has no bytes for some text.
    """
    if connection.dialect.name == "sqlite":
        if not any(row.file for row in connection.exec_driver_sql("PRAGMA database_list")):
            raise ConfigurationError(
                "SQLite in memory is one database a connection; use MemoryKeyStore, or a file"
            )
    elif connection.get_isolation_level() == "READ UNCOMMITTED":
        raise ConfigurationError(
            "the key store's engine has the isolation level READ UNCOMMITTED; READ COMMITTED is the least"
        )
    if connection.dialect.name == "postgresql":
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise ConfigurationError(f"the key store's database is encoded in {encoding}; make one in UTF8")
    if _commits_each_statement(connection):
        raise ConfigurationError(
            "the key store's engine has the isolation level AUTOCOMMIT; pass one with transactions"
        )


def _commits_each_statement(connection: Connection) -> bool:
    # SQLAlchemy tells the database's level; that a driver commits by itself only the driver knows.
    if connection.dialect.name in ("mysql", "mariadb"):
        return bool(connection.scalar(text("SELECT @@autocommit")))
    driver = connection.connection.dbapi_connection
    if getattr(driver, "autocommit", None) is True:
        return True
    # SQLite: the driver begins no transactions, and no listener of the engine has begun one in its place,
    # though a statement was executed by now.
    return getattr(driver, "isolation_level", "") is None and getattr(driver, "in_transaction", None) is False
