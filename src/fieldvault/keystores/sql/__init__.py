"""A key store in a SQL database: SQLite, PostgreSQL, MariaDB."""

from fieldvault.keystores.sql.store import SQLKeyStore

__all__ = ["SQLKeyStore"]
