"""What a column that holds ciphertexts may be, and the values that Python puts into it by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint

from fieldvault.errors import ConfigurationError
from fieldvault.sqlalchemy.binding import binding_of, encrypted_columns

__all__ = ["check_column", "check_table", "default_of"]


_KEYS = (PrimaryKeyConstraint, ForeignKeyConstraint)


def check_column(column: Column[Any], table: Table) -> None:
    """Refuse an encrypted column that the database would have to fill or to compare.

    Raises:
        ConfigurationError: it has a default of the database's or an expression for one, a default on update,
            or is a primary or foreign key.
    """
    name = f"{table.name}.{column.name} is encrypted"
    default = column.default
    if (
        column.server_default is not None
        or column.server_onupdate is not None
        or column.computed is not None
        or (default is not None and not default.is_scalar and not default.is_callable)
    ):
        raise ConfigurationError(
            f"{name} and has a default that the database fills in: plaintext; give it a default in Python"
        )
    if column.onupdate is not None:
        raise ConfigurationError(f"{name} and has an onupdate; assign the value where the row is changed")
    if (column.unique or column.index) and not column.type.deterministic:  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"{name} and unique or indexed; ciphertexts of one value differ, so the database would notice no "
            "duplicate and find nothing: let a BlindIndex beside it be unique or indexed, or make it "
            "deterministic=True"
        )
    if column.primary_key or column.foreign_keys:
        raise ConfigurationError(
            f"{name} and is a key; ciphertexts of one value differ, or change with the tenant's keys, "
            "so no row would be found by it"
        )


def check_table(table: Table) -> None:
    """Refuse what a table says of several columns, one of them encrypted, as ``check_column`` does of one.

    Raises:
        ConfigurationError: a key, a unique constraint or an index has such a column.
    """
    unmatched = [each for each in encrypted_columns(table) if not each.type.deterministic]  # type: ignore[attr-defined]
    keys = [each for each in table.constraints if isinstance(each, _KEYS)]
    indexes = binding_of(table.metadata).index_columns.get(table, ())
    for columns, refused in (
        *((each.columns, unmatched) for each in table.constraints if isinstance(each, UniqueConstraint)),
        *((each.columns, unmatched) for each in table.indexes),
        *((each.columns, [*encrypted_columns(table), *indexes]) for each in keys),
    ):
        for column in refused:
            if any(each is column for each in columns):
                raise ConfigurationError(
                    f"{table.name}.{column.name} is encrypted, or a blind index, and a constraint or an "
                    "index of the table has it; ciphertexts of one value differ: let that have a BlindIndex "
                    "beside it, or make the column deterministic=True; either may be unique or indexed, and "
                    "is no key"
                )


def default_of(column: Column[Any], row: Mapping[str, Any]) -> Any:
    """What Python would put into a column that a row leaves out, ``None`` if nothing.

    A value, or a function's answer; a function that asks for the statement's parameters gets ``row``.
    """
    default = column.default
    if default is None:
        return None
    if default.is_scalar:
        return default.arg  # type: ignore[attr-defined]
    if default.is_callable:
        return default.arg(_Context(row))  # type: ignore[attr-defined]
    return None


class _Context:
    """As much of an execution context as defaults may ask for before there is one."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.current_parameters = row

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """The values of the row as they are so far."""
        return dict(self.current_parameters)
