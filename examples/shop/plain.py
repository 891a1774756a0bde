"""Columns in the clear, searched as encrypted ones are: what models have while encryption is off."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, String
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import ClauseElement, operators
from sqlalchemy.types import TypeDecorator, TypeEngine, to_instance

from fieldvault.search.normalize import is_partial, normalizer

_EQUALITY = (operators.eq, operators.ne, operators.in_op)


class PlainLookup(TypeDecorator[str]):
    """A column with the normalized text of another one, and compared with values as they are written."""

    impl = String
    cache_ok = True

    def __init__(self, of: str, normalize: Any, *, partial: bool) -> None:
        super().__init__()
        self.of = of
        self.normalize = normalizer(normalize)
        self.partial = partial or is_partial(self.normalize)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """The text that equal values share."""
        return None if value is None else self.normalize(value)


class _ByLookup(TypeDecorator.Comparator[Any]):
    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> Any:
        # Columns are left alone: SQLAlchemy compares them among themselves, to find them in dictionaries.
        if op in _EQUALITY and not (other[0] is None or isinstance(other[0], ClauseElement)):
            lookup = _lookup_of(self.expr)
            if lookup is not None:
                return lookup.operate(op, *other, **kwargs)
        return super().operate(op, *other, **kwargs)


class Plain(TypeDecorator[Any]):
    """A column in the clear whose ``==``, ``!=`` and ``in_`` go to its lookup column, where it has one."""

    impl = String
    cache_ok = True
    comparator_factory = _ByLookup

    def __init__(self, type_: TypeEngine[Any] | type[TypeEngine[Any]]) -> None:
        super().__init__()
        self.type_ = to_instance(type_)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type that it was given."""
        return dialect.type_descriptor(self.type_)


def fill_lookups(mapper: Mapper[Any], connection: Any, target: Any) -> None:  # noqa: ARG001
    """Listener of ``before_insert`` and ``before_update``: lookup columns follow what they are of."""
    for key, column in mapper.columns.items():
        if isinstance(column.type, PlainLookup):
            setattr(target, key, getattr(target, column.type.of))


def _lookup_of(expression: Any) -> Column[Any] | None:
    table = getattr(expression, "table", None)
    for column in () if table is None else table.c:
        type_ = column.type
        if isinstance(type_, PlainLookup) and not type_.partial and type_.of == expression.key:
            found: Column[Any] = column
            return found
    return None
