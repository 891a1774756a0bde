"""Duplicates that a unique blind index found: told by the field, where the database names an index only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Table, UniqueConstraint
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError

from fieldvault.sqlalchemy.binding import encrypted_columns
from fieldvault.sqlalchemy.bound_index import indexes_of

__all__ = ["NotUnique", "comparable", "is_unique", "name_the_field", "named", "unique_sets"]


class NotUnique(IntegrityError):
    """A row of the same tenant has this value already, in fields that are unique.

    ``fields`` are the names that the values are bound to, such as ``customers.email``. It is SQLAlchemy's
    ``IntegrityError``, and shows no parameters.
    """

    def __init__(self, error: IntegrityError, fields: tuple[str, ...]) -> None:
        super().__init__(error.statement, error.params, error.orig, hide_parameters=True)  # type: ignore[arg-type]
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        plain = IntegrityError(self.statement, self.params, self.orig, hide_parameters=True)  # type: ignore[arg-type]
        return NotUnique, (plain, self.fields)

    def _message(self) -> str:
        return f"{', '.join(self.fields)}: a row of the tenant has this value already\n{super()._message()}"


def name_the_field(context: ExceptionContext) -> BaseException | None:
    """Listener of ``handle_error``: the error of a unique blind index names what was indexed."""
    error = context.sqlalchemy_exception
    compiled: Any = getattr(context.execution_context, "compiled", None)
    table = getattr(getattr(compiled, "statement", None), "table", None)
    if not isinstance(error, IntegrityError) or not isinstance(table, Table):
        return None
    return named(error, table)


def named(error: IntegrityError, table: Table) -> NotUnique | None:
    """The error of a table's unique blind index, or deterministic column, with the fields; else ``None``."""
    # Not the error's own text, in which some drivers quote what they quoted once more.
    said = " ".join(map(str, getattr(error.orig, "args", ())))
    for column, sources in comparable(table):
        if any(name in said for name in _names(table, column)):
            return NotUnique(error, tuple(source.type.field for source in sources))
    return None


def is_unique(table: Table, key: str) -> bool:
    """Whether a unique constraint or index has this column."""
    return bool(unique_sets(table, key))


def unique_sets(table: Table, key: str) -> Sequence[Sequence[Column[Any]]]:
    """The columns of each unique constraint, unique index or key that has this column."""
    sets = [list(each.columns) for each in _unique(table)]
    return [columns for columns in sets if any(member is table.c[key] for member in columns)]


def comparable(table: Table) -> Iterable[tuple[Column[Any], Sequence[Any]]]:
    """The columns that hold the same for the same value, and whose values those are."""
    yield from ((index.column, index.sources) for index in indexes_of(table))
    yield from ((each, [each]) for each in encrypted_columns(table) if each.type.deterministic)  # type: ignore[attr-defined]


def _unique(table: Table) -> Sequence[Any]:
    # PostgreSQL's exclusion constraints by name, for they are of its dialect.
    found: list[Any] = [
        each
        for each in table.constraints
        if isinstance(each, UniqueConstraint) or type(each).__name__ == "ExcludeConstraint"
    ]
    return [*found, *(each for each in table.indexes if each.unique)]


def _names(table: Table, column: Column[Any]) -> Iterable[str]:
    """By what databases call a unique constraint or index of this column."""
    for each in _unique(table):
        if any(member is column for member in each.columns):
            yield f"{table.name}.{column.name}"
            # Quoted, as PostgreSQL and MariaDB do: one name may begin with another.
            together = "_".join(member.name for member in each.columns)
            for name in (each.name, f"{table.name}_{together}_key", next(iter(each.columns)).name):
                yield f'"{name}"'
                yield f"'{name}'"
