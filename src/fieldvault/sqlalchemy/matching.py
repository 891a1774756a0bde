"""``==``, ``!=`` and ``in_`` of encrypted columns, by their blind indexes.

A query holds the values that are looked for, and not their tokens: those depend on the tenant of the scope
that the query is executed in, and on the index keys of that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from sqlalchemy import Column, Table, and_
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ClauseElement,
    ColumnElement,
    Grouping,
)
from sqlalchemy.sql.lambdas import PyWrapper
from sqlalchemy.types import Boolean, TypeEngine

from fieldvault.errors import UnsupportedQuery
from fieldvault.keys.indexing import IndexKeys
from fieldvault.sqlalchemy.beside import beside
from fieldvault.sqlalchemy.binding import Binding, stored_name
from fieldvault.sqlalchemy.bound_index import BoundIndex, indexes_of
from fieldvault.sqlalchemy.carrier import Sealed
from fieldvault.sqlalchemy.deterministic import cells_sought
from fieldvault.sqlalchemy.exactly import exactly
from fieldvault.sqlalchemy.indexing import content_maker
from fieldvault.sqlalchemy.waiting import fetch_index_keys

__all__ = ["IndexComparator", "Match", "keys_of_search", "match"]

_POSITIVE = (operators.eq, operators.in_op)
_OPERATORS = (*_POSITIVE, operators.ne, operators.not_in_op)

# Only types of the application's own ask for a dialect when they convert a value.
_DIALECT = DefaultDialect()


def tenant_of_search(binding: Binding, table: Table) -> str:
    """Whose rows are looked for: the ambient scope's tenant's.

    Raises:
        ScopeRequired: there is none.
    """
    scope = binding.scopes.get(table)
    return binding.ambient_tenant(table.name, scoped=scope is not None and scope.tenant is not None)


class Match(BinaryExpression[bool]):
    """A column and the tokens, or deterministic ciphertexts, that it is to have, or not to have."""

    __visit_name__ = "fieldvault_match"
    inherit_cache = True

    index: BoundIndex | None

    def _negate(self) -> ColumnElement[bool]:
        sought: Any = self.right
        opposite = operators.not_in_op if self.operator is operators.in_op else operators.in_op
        return _matched(self.left, opposite, sought.callable, self.index)


class _WithinTenant(Grouping[bool]):
    """A match among the rows of one tenant, and so is what is not a match."""

    inherit_cache = True

    def _negate(self) -> ColumnElement[bool]:
        return next(each for each in visitors.iterate(self) if isinstance(each, Match))._negate()


@compiles(Match)
def _compile(element: Any, compiler: Any, **kwargs: Any) -> str:
    text: str = compiler.visit_binary(element, **kwargs)
    return text


class _Sought:
    """The values that a query looks for; called when it is executed, it gives their tokens.

    It neither prints nor pickles what it holds.
    """

    __slots__ = ("_cells", "_values", "binding", "table")

    def __init__(
        self,
        binding: Binding,
        table: Table,
        cells: Callable[[IndexKeys, Sequence[Any]], list[Sealed]],
        values: Sequence[Any],
    ) -> None:
        self.binding = binding
        self.table = table
        self._cells = cells
        self._values = values

    def __call__(self) -> list[Sealed]:
        """What rows with one of the values may have in the column, under every key of the tenant."""
        return self._cells(keys_of_search(self.binding, self.table), self._values)

    def __repr__(self) -> str:
        return "<sought>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a query for encrypted values is not pickled: it holds them")


def keys_of_search(binding: Binding, table: Table) -> IndexKeys:
    """The index keys of the ambient scope's tenant.

    Raises:
        ScopeRequired: there is no tenant.
        KeyShredded, KeySuspended, KMSError, KeyStoreError: they cannot be had.
    """
    tenant = tenant_of_search(binding, table)
    fetch_index_keys(binding.vault, [tenant])
    return binding.vault.ring.index_keys(tenant)


def _tokens_sought(index: BoundIndex, keys: IndexKeys, values: Sequence[Any]) -> list[Sealed]:
    """The tokens, each with what it was made of, for comparing what a truncated index finds."""
    return [
        Sealed((token, content))
        for content in dict.fromkeys(map(content_maker(index, _DIALECT), values))
        if content is not None
        for token in keys.tokens(index.spec, content)
    ]


class _Tenant:
    """The tenant of the scope that a query is executed in, as its column has it."""

    __slots__ = ("_binding", "_column", "_table")

    def __init__(self, binding: Binding, table: Table, column: Column[Any]) -> None:
        self._binding = binding
        self._table = table
        self._column = column

    def __call__(self) -> Any:
        return stored_name(self._column, tenant_of_search(self._binding, self._table))


def match(expression: Any, operator: Any, other: Any) -> ColumnElement[bool] | None:
    """The comparison of an encrypted column with values, as one of its index; ``None`` where it has none.

    A deterministic column is compared itself.
    """
    if expression.type.deterministic:
        return _match_cells(expression, operator, other)
    index = _index_for(expression) if operator in _OPERATORS else None
    column = None if index is None else beside(expression, index.column)
    values = _values(operator, other)
    if index is None or column is None or values is None:
        return None
    return _matching(index, column, operator, [(value,) for value in values if value is not None])


def _match_cells(expression: Any, operator: Any, other: Any) -> ColumnElement[bool] | None:
    values = _values(operator, other) if operator in _OPERATORS else None
    if values is None:
        return None
    bound = expression.type.bound
    sought = _Sought(
        bound.binding,
        bound.table,
        partial(cells_sought, bound, _DIALECT),
        [each for each in values if each is not None],
    )
    return _matched(expression, operator, sought)


class IndexComparator(TypeEngine.Comparator[Any]):
    """Lets a query ask a blind index for what it indexes, and not for tokens."""

    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> Any:
        """``==``, ``!=``, ``in_`` and ``not_in`` with values; NULL or not NULL; and what asks for no value.

        Raises:
            UnsupportedQuery: a token, a parameter without a value, or another kind of comparison.
        """
        value: Any = other[0] if other else None
        if op is operators.eq and isinstance(self.expr, BindParameter):
            # SQLAlchemy keeps parameters in dictionaries, and so compares those of one hash.
            return super().operate(op, *other, **kwargs)
        # SQLAlchemy finds columns in lists and dictionaries by comparing them.
        shown = value.__clause_element__() if hasattr(value, "__clause_element__") else value
        is_column = isinstance(shown, ColumnElement) and not isinstance(shown, BindParameter)
        if op in _OPERATORS and value is not None and not is_column:
            table = getattr(self.expr, "table", None)
            index = _bound_to(self.expr)
            values = _values(op, value)
            if index is not None and table is not None and values is not None:
                several = len(index.sources) > 1
                rows = [tuple(each) if several else (each,) for each in values if each is not None]
                if all(len(row) == len(index.sources) for row in rows):
                    return _matching(index, self.expr, op, rows)
            raise UnsupportedQuery(
                f"{self.expr} is a blind index: it is compared with what it indexes, a value or, for several "
                "columns, a tuple of their values"
            )
        return super().operate(op, *other, **kwargs)


def _matching(
    index: BoundIndex, column: Any, operator: Any, rows: Sequence[Sequence[Any]]
) -> ColumnElement[bool]:
    sought = _Sought(index.binding, index.table, partial(_tokens_sought, index), rows)
    return _matched(column, operator, sought, index)


def _matched(
    column: Any, operator: Any, sought: _Sought, index: BoundIndex | None = None
) -> ColumnElement[bool]:
    how = operators.in_op if operator in _POSITIVE else operators.not_in_op
    parameter = BindParameter(None, None, callable_=sought, type_=column.type, expanding=True, unique=True)
    parameter.expand_op = how  # type: ignore[assignment]
    made = Match(column, parameter, how, type_=Boolean())
    made.index = index
    truncated = index is not None and index.spec.is_truncated
    return made if how is operators.in_op and not truncated else _within_tenant(sought, column, made)


def _within_tenant(sought: _Sought, column: Any, found: Match) -> ColumnElement[bool]:
    """Short tokens of other tenants may be the same, and whole ones never are, whatever the values are."""
    scope = sought.binding.scopes.get(sought.table)
    own = None if scope is None else scope.tenant
    tenant = None if own is None or own.table is not sought.table else beside(column, own)
    if own is None or tenant is None:
        return found
    name = BindParameter(None, None, callable_=_Tenant(sought.binding, sought.table, own), type_=tenant.type)
    return _WithinTenant(and_(exactly(tenant, name), found))


def _values(operator: Any, other: Any) -> list[Any] | None:
    """What is compared with; ``None`` for what has no value yet, or never has one in Python.

    Raises:
        UnsupportedQuery: it is the value of a variable in a lambda, which SQLAlchemy takes in once.
    """
    if any(isinstance(each, PyWrapper) for each in (other if isinstance(other, list | tuple) else [other])):
        raise UnsupportedQuery(
            "SQLAlchemy keeps the statement of a lambda, and would go on to look for the first value; build "
            "a statement that compares an encrypted column without one"
        )
    if isinstance(other, ClauseElement) or hasattr(other, "__clause_element__"):
        other = getattr(other, "value", None) if type(other) is BindParameter and not other.required else None
        if other is None:
            return None
    return list(other) if operator in (operators.in_op, operators.not_in_op) else [other]


def _bound_to(expression: Any) -> BoundIndex | None:
    """The index that a column, or a column of an alias, is of."""
    for column in getattr(expression, "base_columns", ()):
        table = getattr(column, "table", None)
        for index in indexes_of(table) if isinstance(table, Table) else ():
            if index.key == column.key:
                return index
    return None


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
        and not index.is_partial
    ]
    return max(found, key=lambda index: index.spec.bits, default=None)
