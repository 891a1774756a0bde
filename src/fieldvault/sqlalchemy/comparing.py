"""What a query may ask of an encrypted column."""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ColumnElement, Null
from sqlalchemy.types import Boolean, TypeEngine

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.deterministic import are_comparable, is_deterministic
from fieldvault.sqlalchemy.hints import indexes_to_ask
from fieldvault.sqlalchemy.matching import match

__all__ = ["EncryptedComparator"]

_EQUALITY = (operators.eq, operators.ne)
_PRESENCE = (*_EQUALITY, operators.is_, operators.is_not)


_WORDS = {operators.eq: "==", operators.ne: "!=", operators.lt: "<", operators.gt: ">"}
_WORDS |= {
    operators.le: "<=",
    operators.ge: ">=",
    operators.desc_op: "ORDER BY",
    operators.asc_op: "ORDER BY",
}


class EncryptedComparator(TypeEngine.Comparator[Any]):
    """Lets a query ask whether there is a value and, where there is a blind index, whether it is that one."""

    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> Any:
        """NULL or not NULL; with a blind index also ``==``, ``!=``, ``in_`` and ``not_in``.

        A deterministic column is compared with values and with columns of the same field.

        Raises:
            UnsupportedQuery: any other question.
        """
        if op is operators.eq and isinstance(self.expr, BindParameter):
            # SQLAlchemy keeps parameters in dictionaries, and so compares those of one hash.
            return super().operate(op, *other, **kwargs)
        value = other[0] if op in _PRESENCE else self
        if value is None or isinstance(value, Null):
            return super().operate(op, *other, **kwargs)
        found = match(self.expr, op, other[0]) if other else None
        if found is not None:
            return found
        if op is operators.distinct_op and is_deterministic(self.type):
            return super().operate(op, *other, **kwargs)
        if are_comparable(self.expr, op, other[0] if other else None):
            return super().operate(op, *other, **kwargs)
        if op in _EQUALITY and isinstance(value, ColumnElement) and not isinstance(value, BindParameter):
            return _Incomparable(self.expr, value, op, type_=Boolean())
        raise _refusal(self.expr, op)

    def reverse_operate(self, op: operators.OperatorType, other: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002
        """Refused as ``operate`` does."""
        raise _refusal(self.expr, op)


class _Incomparable(BinaryExpression[bool]):
    """An encrypted column and another: refused as soon as a statement is made of it.

    Not before: SQLAlchemy finds columns in lists and dictionaries by comparing them.
    """

    inherit_cache = True


@compiles(_Incomparable)
def _refuse(element: _Incomparable, compiler: Any, **kwargs: Any) -> NoReturn:
    raise _refusal(element.left, element.operator)


def _refusal(expression: ColumnElement[Any], op: Any) -> UnsupportedQuery:
    name = _WORDS.get(op) or getattr(op, "__name__", str(op)).removesuffix("_op")
    return UnsupportedQuery(
        f"{getattr(expression.type, 'field', None) or expression} is encrypted, so the database cannot "
        f"answer {name!r} on it; "
        "select the rows by other columns and compare in Python, ask is_(None), or give the column a "
        f"BlindIndex for ==, != and in_{indexes_to_ask(expression.type)}"
    )
