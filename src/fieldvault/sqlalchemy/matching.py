"""``==``, ``!=`` and ``in_`` of encrypted columns, by their blind indexes.

A query holds the values that are looked for, and not their tokens: those depend on the tenant of the scope
that the query is executed in, and on the index keys of that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ClauseElement, ColumnElement
from sqlalchemy.types import Boolean

from fieldvault.sqlalchemy.blind_index import BoundIndex, indexes_of
from fieldvault.sqlalchemy.carrier import Sealed
from fieldvault.sqlalchemy.indexing import content_of

__all__ = ["Match", "match"]

_POSITIVE = (operators.eq, operators.in_op)
_OPERATORS = (*_POSITIVE, operators.ne, operators.not_in_op)

# Only types of the application's own ask for a dialect when they convert a value.
_DIALECT = DefaultDialect()


class Match(BinaryExpression[bool]):
    """An index column and the tokens that it is to have, or not to have."""

    __visit_name__ = "fieldvault_match"
    inherit_cache = True

    index: BoundIndex


@compiles(Match)
def _compile(element: Any, compiler: Any, **kwargs: Any) -> str:
    text: str = compiler.visit_binary(element, **kwargs)
    return text


class _Sought:
    """The values that a query looks for; called when it is executed, it gives their tokens.

    It neither prints nor pickles what it holds.
    """

    __slots__ = ("_index", "_values")

    def __init__(self, index: BoundIndex, values: Sequence[Any]) -> None:
        self._index = index
        self._values = values

    def __call__(self) -> list[Sealed]:
        index = self._index
        tenant = index.binding.ambient_tenant(index.table.name)
        keys = index.binding.vault.ring.index_keys(tenant)
        contents = [content_of(index, values, _DIALECT) for values in self._values]
        return [
            Sealed((token,))
            for content in dict.fromkeys(contents)
            if content is not None
            for token in keys.tokens(index.spec, content)
        ]

    def __repr__(self) -> str:
        return "<sought>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a query for encrypted values is not pickled: it holds them")


def match(expression: Any, operator: Any, other: Any) -> ColumnElement[bool] | None:
    """The comparison of an encrypted column with values, as one of its index; ``None`` where it has none."""
    if operator not in _OPERATORS:
        return None
    many = operator in (operators.in_op, operators.not_in_op)
    if isinstance(other, ClauseElement) or hasattr(other, "__clause_element__"):
        value = getattr(other, "value", None) if type(other) is BindParameter and not other.required else None
        if value is None:
            return None
        other = value
    values = list(other) if many else [other]
    index = _index_for(expression)
    column = None if index is None else expression.table.c.get(index.key)
    if index is None or column is None:
        return None
    sought = BindParameter(
        None,
        None,
        callable_=_Sought(index, [(value,) for value in values if value is not None]),
        type_=index.column.type,
        expanding=True,
        unique=True,
    )
    how = operators.in_op if operator in _POSITIVE else operators.not_in_op
    sought.expand_op = how  # type: ignore[assignment]
    made = Match(column, sought, how, type_=Boolean())
    made.index = index
    return made


def _index_for(expression: Any) -> BoundIndex | None:
    """The index of exactly this column that says most about its values."""
    table = expression.type.table
    if table is None or getattr(expression, "table", None) is None:
        return None
    found = [
        index
        for index in indexes_of(table)
        if len(index.sources) == 1
        and index.sources[0].type.field == expression.type.field  # type: ignore[attr-defined]
        and not getattr(index.spec.normalizers[0], "is_partial", False)
    ]
    return max(found, key=lambda index: index.spec.bits, default=None)
