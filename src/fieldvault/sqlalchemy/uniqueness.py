"""Duplicates that a unique blind index found: told by the field, where the database names an index only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table, UniqueConstraint
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError

from fieldvault.sqlalchemy.bound_index import BoundIndex, indexes_of

__all__ = ["NotUnique", "name_the_field"]


class NotUnique(IntegrityError):
    """A row of the same tenant has this value already, in fields whose blind index is unique.

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
    # Not the error's own text, in which some drivers quote what they quoted once more.
    said = " ".join(map(str, getattr(error.orig, "args", ())))
    for index in indexes_of(table):
        if any(name in said for name in _names(index)):
            sources: Any = index.sources
            return NotUnique(error, tuple(source.type.field for source in sources))
    return None


def _names(index: BoundIndex) -> Iterable[str]:
    """By what databases call a unique constraint or index of this column."""
    table, column = index.table, index.column
    unique: list[Any] = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    unique.extend(each for each in table.indexes if each.unique)
    for each in unique:
        if any(member is column for member in each.columns):
            yield f"{table.name}.{column.name}"
            # Quoted, as PostgreSQL and MariaDB do: one name may begin with another.
            for name in (each.name, f"{table.name}_{column.name}_key", column.name):
                yield f'"{name}"'
                yield f"'{name}'"
