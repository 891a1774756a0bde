"""``exactly``: whether a column has a name as keys tell names apart, and not as a collation does."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, ColumnElement
from sqlalchemy.types import Boolean, String

from fieldvault.sqlalchemy.coercion import inner_type

__all__ = ["exactly"]


class Exactly(BinaryExpression[bool]):
    """An equality that holds for texts of the same characters only.

    MariaDB's usual collations take "ACME" for "acme", and "acme " too; those are three tenants.
    """

    __visit_name__ = "fieldvault_exactly"
    inherit_cache = True


def exactly(column: Any, value: Any) -> ColumnElement[bool]:
    """The condition that ``column`` is ``value``, another column or a value that is not NULL."""
    equality = column == value
    return Exactly(equality.left, equality.right, operators.eq, type_=Boolean())


@compiles(Exactly)
def _compile(element: Any, compiler: Any, **kwargs: Any) -> str:
    text: str = compiler.visit_binary(element, **kwargs)
    return text


@compiles(Exactly, "mysql", "mariadb")
def _compile_by_bytes(element: Any, compiler: Any, **kwargs: Any) -> str:
    equality: str = compiler.visit_binary(element, **kwargs)
    if not _is_text(element.left.type):
        return equality
    # The equality itself stays, for the sake of the column's indexes.
    sides = (compiler.process(side, **kwargs) for side in (element.left, element.right))
    # In one character set: a column may have another than the connection.
    one, other = (f"CAST(CONVERT({side} USING utf8mb4) AS BINARY)" for side in sides)
    return f"({equality} AND {one} = {other})"


def _is_text(type_: Any) -> bool:
    return isinstance(inner_type(type_), String)
