"""What Alembic's ``env.py`` passes to ``context.configure`` (docs/alembic.md).

A migration describes tables as they are stored. It names SQLAlchemy's own types, so it neither imports
fieldvault nor reaches a key, and it runs the same long after the model has changed. Alembic calls this module
and is no dependency of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import DefaultClause, LargeBinary, String
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import TypeEngine

from fieldvault.sqlalchemy.blind_index import BlindIndex
from fieldvault.sqlalchemy.types import Encrypted

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import (
        AlterColumnOp,
        MigrateOperation,
        MigrationScript,
        ModifyTableOps,
        OpContainer,
    )
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Column

__all__ = ["compare_type", "process_revision_directives", "render_item"]

_OURS = (Encrypted, BlindIndex)
_MYSQL = ("mysql", "mariadb")


def render_item(type_: str, obj: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """The stored type of an encrypted column or a blind index, as Python source; else ``False``.

    For every database at once, whichever the migration is made on.
    """
    if type_ != "type" or not isinstance(obj, _OURS):
        return False
    dialect = mysql.dialect()
    large = obj.load_dialect_impl(dialect).dialect_impl(dialect)
    autogen_context.imports.add("from sqlalchemy.dialects import mysql")
    prefix = autogen_context.opts["sqlalchemy_module_prefix"] or ""
    names = ", ".join(map(repr, _MYSQL))
    return f"{prefix}{_stored(obj)!r}.with_variant(mysql.{large!r}, {names})"


def compare_type(
    context: MigrationContext,
    inspected_column: Column[Any],
    metadata_column: Column[Any],
    inspected_type: TypeEngine[Any],
    metadata_type: TypeEngine[Any],
) -> bool | None:
    """Whether a column is stored otherwise than its ``Encrypted`` or ``BlindIndex`` wants it.

    ``None``, which leaves the comparison to Alembic, for other types, and on MySQL and MariaDB, where the
    names of types say all. On PostgreSQL ``TEXT`` and ``VARCHAR`` without a length are the same, and drivers
    differ in which they make.
    """
    if not isinstance(metadata_type, _OURS) or context.dialect.name in _MYSQL:
        return None
    if isinstance(_stored(metadata_type), LargeBinary):
        return not isinstance(inspected_type, LargeBinary)
    return not isinstance(inspected_type, String) or inspected_type.length is not None


def process_revision_directives(
    context: MigrationContext,
    revision: str | Iterable[str | None] | Iterable[str],
    directives: list[MigrationScript],
) -> None:
    """Make a migration that changes the type of a sealed column stop where the column still holds values.

    No database seals, opens or re-encodes a value: such a column would hold plaintext where ciphertexts are
    meant, or the reverse. The migration checks this before it changes anything. For PostgreSQL, which refuses
    the change of a type that it cannot cast, it also says what becomes of the values: there are none.
    """
    for script in directives:
        for up in script.upgrade_ops_list:
            _guard(up, context.dialect, type_last=True)
        for down in script.downgrade_ops_list:
            _guard(down, context.dialect, type_last=False)


def _stored(type_: Any) -> TypeEngine[Any]:
    """The type in the terms that all databases have: of bytes, or of text."""
    return type_.load_dialect_impl(DefaultDialect()) if isinstance(type_, _OURS) else type_


def _guard(changes: OpContainer, dialect: Dialect, *, type_last: bool) -> None:
    # What a migration calls is Alembic's: it is there whenever this is called.
    from alembic.operations.ops import ExecuteSQLOp, ModifyTableOps  # noqa: PLC0415

    counts: list[MigrateOperation] = []
    kept: list[MigrateOperation] = []
    for table in changes.ops:
        if not isinstance(table, ModifyTableOps):
            kept.append(table)
            continue
        crossing = [change for change in _alterations(table) if _crosses(change)]
        for change in crossing:
            counts.append(ExecuteSQLOp(_count(change, dialect)))
            _take_default_along(change)
        types: list[MigrateOperation] = []
        if dialect.name == "postgresql":
            types += [ExecuteSQLOp(_change_of_type(change, dialect)) for change in crossing]
            for change in crossing:
                change.modify_type = None
                if not change.has_changes():
                    table.ops.remove(change)
        # A default of the plain column goes before its type does, and comes back after it.
        kept += [table, *types] if type_last else [*types, table]
    if counts:
        counts = [ExecuteSQLOp(_BEGIN), *counts, ExecuteSQLOp(_END)]
    changes.ops[:] = [*counts, *kept]


def _alterations(table: ModifyTableOps) -> list[AlterColumnOp]:
    from alembic.operations.ops import AlterColumnOp  # noqa: PLC0415

    return [change for change in table.ops if isinstance(change, AlterColumnOp)]


def _crosses(change: AlterColumnOp) -> bool:
    """Whether what is stored would mean something else after the change."""
    old, new = change.existing_type, change.modify_type
    if old is None or new is None or not isinstance(new if isinstance(new, _OURS) else old, _OURS):
        return False
    if isinstance(old, BlindIndex) or isinstance(new, BlindIndex):
        return True
    # A ciphertext of bytes is the same in a larger or smaller column of bytes.
    return not (isinstance(_stored(old), LargeBinary) and isinstance(_stored(new), LargeBinary))


def _take_default_along(change: AlterColumnOp) -> None:
    """Alembic leaves defaults of the database alone, unless told; a plaintext's is none for ciphertexts."""
    default = change.existing_server_default
    if change.modify_server_default is not False or not isinstance(default, DefaultClause):
        return
    if isinstance(change.modify_type, _OURS):
        change.modify_server_default = None
    else:
        change.modify_server_default, change.existing_server_default = default, None


# A check that fails is the one way to stop that SQLite, PostgreSQL, MariaDB and an offline script share.
_BEGIN = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS fieldvault_check "
    "(left_over BIGINT, CONSTRAINT column_still_holds_values CHECK (left_over = 0))"
)
_END = "DROP TABLE fieldvault_check"


def _names(change: AlterColumnOp, dialect: Dialect) -> tuple[str, str]:
    quote = dialect.identifier_preparer.quote
    table = ".".join(quote(name) for name in (change.schema, change.table_name) if name)
    # Alembic takes a colon for the start of a parameter.
    return table.replace(":", r"\:"), quote(change.column_name).replace(":", r"\:")


def _count(change: AlterColumnOp, dialect: Dialect) -> str:
    table, column = _names(change, dialect)
    return f"INSERT INTO fieldvault_check SELECT COUNT({column}) FROM {table}"  # noqa: S608 - quoted names


def _change_of_type(change: AlterColumnOp, dialect: Dialect) -> str:
    table, column = _names(change, dialect)
    type_ = dialect.type_compiler_instance.process(_stored(change.modify_type))
    return f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_} USING NULL"
