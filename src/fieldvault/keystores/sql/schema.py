"""The tables of ``SQLKeyStore`` and the steps from each schema version to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import TypeDecorator, TypeEngine

from fieldvault.context import MAX_NAME_SIZE
from fieldvault.envelope import KEY_ID_SIZE
from fieldvault.errors import KeyStoreError

__all__ = [
    "CONSTRAINTS",
    "NO_SUBJECT",
    "STEPS",
    "Step",
    "changes",
    "fences",
    "is_newest",
    "keys",
    "meta",
    "tenants",
    "upgrade",
]

NO_SUBJECT = ""
"""Stands for "no subject" in a column that takes part in unique constraints.

No subject is empty (docs/format.md, 1).
"""

CONSTRAINTS = ("fieldvault_keys_version", "fieldvault_keys_active")
"""What stands behind every decision about a slot: one key a version, one active key."""


class ExactText(TypeDecorator[str]):
    """Text that is equal, and sorted, byte for byte.

    MariaDB's text is not: ``acme``, ``ACME`` and ``acme `` would be one tenant. PostgreSQL's need not be.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Bytes on MariaDB and MySQL, text elsewhere."""
        if _is_mysql(dialect):
            return dialect.type_descriptor(VARBINARY(MAX_NAME_SIZE))
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(String(MAX_NAME_SIZE, collation=collation))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Text to what the database compares."""
        return value.encode() if value is not None and _is_mysql(dialect) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - its shape
        """And back."""
        return value.decode() if isinstance(value, bytes) else value


def _is_mysql(dialect: Dialect) -> bool:
    return dialect.name in ("mysql", "mariadb")


def _key_id() -> TypeEngine[bytes]:
    return LargeBinary(KEY_ID_SIZE).with_variant(VARBINARY(KEY_ID_SIZE), "mysql", "mariadb")


_metadata = MetaData()

# Whatever the server's defaults: an engine with transactions, and all of Unicode in the fences' reasons.
_TABLE: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
}

meta = Table(
    "fieldvault_meta",
    _metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
    **_TABLE,
)

tenants = Table("fieldvault_tenants", _metadata, Column("tenant", ExactText, primary_key=True), **_TABLE)

keys = Table(
    "fieldvault_keys",
    _metadata,
    Column("key_id", _key_id(), primary_key=True),
    Column("tenant", ExactText, nullable=False),
    Column("subject", ExactText, nullable=False),
    Column("purpose", String(8), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("parent", _key_id()),
    Column("wrapped", LargeBinary),
    Column("uses", BigInteger, nullable=False),
    # 1 or NULL: unique constraints let any number of NULLs stand, in all three databases, and one 1.
    Column("active", SmallInteger),
    UniqueConstraint("tenant", "subject", "purpose", "version", name=CONSTRAINTS[0]),
    UniqueConstraint("tenant", "subject", "purpose", "active", name=CONSTRAINTS[1]),
    **_TABLE,
)

fences = Table(
    "fieldvault_fences",
    _metadata,
    Column("tenant", ExactText, primary_key=True),
    Column("subject", ExactText, primary_key=True),
    Column("actor", String(255), nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("at", BigInteger, nullable=False),
    **_TABLE,
)

changes = Table(
    "fieldvault_changes",
    _metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", ExactText, nullable=False),
    Column("subject", ExactText, nullable=False),
    Column("whole_tenant", Boolean, nullable=False),
    **_TABLE,
)

Step = Callable[[Connection], None]


def _create(connection: Connection) -> None:
    for table in (meta, tenants, keys, fences, changes):
        connection.execute(CreateTable(table, if_not_exists=True))
    there = set(connection.scalars(select(meta.c.name)))
    for name in ("generation", "lease_milliseconds", "moved_by", "schema_version"):
        if name not in there:
            connection.execute(insert(meta).values(name=name, value=0))


STEPS: Sequence[Step] = (_create,)
"""Step *n* takes a store from schema version *n* to *n + 1*.

Each may be run again after it was interrupted: not every database rolls back DDL.
"""


def is_newest(connection: Connection, steps: Sequence[Step]) -> bool:
    """Whether the tables are as this release wants them.

    Raises:
        KeyStoreError: a newer release has been here.
    """
    return _version(connection, steps) == len(steps)


def upgrade(connection: Connection, steps: Sequence[Step]) -> None:
    """Bring the tables to the newest version, from nothing or from any older one.

    Raises:
        KeyStoreError: a newer release has been here.
    """
    version = _version(connection, steps)
    for reached, step in enumerate(steps[version:], start=version + 1):
        step(connection)
        connection.execute(update(meta).where(meta.c.name == "schema_version").values(value=reached))


def _version(connection: Connection, steps: Sequence[Step]) -> int:
    if not inspect(connection).has_table(meta.name):
        return 0
    version = connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version")) or 0
    if version > len(steps):
        raise KeyStoreError(
            f"the key store has schema version {version}, this release knows up to {len(steps)}: it was "
            f"used by a newer release"
        )
    return version
