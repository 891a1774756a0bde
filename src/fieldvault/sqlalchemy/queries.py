"""Statements that ask the database about ciphertexts: refused before they are sent.

A comparator sees the operators of a column as a query is built. It does not see functions, casts, ordering,
grouping, DISTINCT, nor a column that stands on the right-hand side. So each statement is looked through once,
when it was compiled: an encrypted column may be selected, written, counted and asked for NULL, nothing else.
A deterministic one may also be compared, grouped and made distinct with its like, under one index key: while
that is rotated equal values have two ciphertexts, and the answer would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, CompoundSelect, Exists, ScalarSelect, Select, Table
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    Case,
    ClauseElement,
    ClauseList,
    ColumnElement,
    Grouping,
    Label,
    Null,
    TypeCoerce,
    UnaryExpression,
    _label_reference,
    _textual_label_reference,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import _CompoundSelectKeyword

from fieldvault.errors import UnsupportedQuery
from fieldvault.sqlalchemy.deterministic import are_comparable, is_deterministic
from fieldvault.sqlalchemy.hints import indexes_to_ask
from fieldvault.sqlalchemy.matching import Match, keys_of_search
from fieldvault.sqlalchemy.origins import is_null, origin
from fieldvault.sqlalchemy.recheck import Recheck, rechecks_of
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["refuse_questions"]

_MEMO = "fieldvault_questions"

_TRANSPARENT = (ClauseList, Grouping, Label)
_DISTINCT_SETS = frozenset(
    {
        _CompoundSelectKeyword.UNION,
        _CompoundSelectKeyword.EXCEPT,
        _CompoundSelectKeyword.INTERSECT,
        _CompoundSelectKeyword.EXCEPT_ALL,
        _CompoundSelectKeyword.INTERSECT_ALL,
    }
)


def refuse_questions(context: ExecutionContext | None) -> Sequence[Recheck]:
    """Look through the statement that is about to be sent, unless that was done when it was first compiled.

    The answer are the comparisons whose rows have to be compared again.

    Raises:
        UnsupportedQuery: the database would compare, order, group or compute with ciphertexts, answer for
            rows that only look alike, or not see which are alike.
        ScopeRequired: rows are compared with each other, and no tenant is known.
    """
    compiled = getattr(context, "compiled", None)
    if compiled is None:
        return ()
    known: _Known | None = compiled.__dict__.get(_MEMO)
    if known is None:
        known = compiled.__dict__[_MEMO] = _questions(compiled)
    for type_ in known.alike:
        _check_one_key(type_)
    return known.rechecks


class _Known(NamedTuple):
    """What was found in a statement: what to compare again, and which fields compare rows with each other."""

    rechecks: Sequence[Recheck]
    alike: Sequence[Encrypted]


def _questions(compiled: Any) -> _Known:
    state = getattr(compiled, "compile_state", None)
    # What an ORM query becomes has the ordering of its eager loads, and its entities' columns, in it.
    statement = getattr(state, "statement", None)
    if not isinstance(statement, ClauseElement):
        statement = compiled.statement
    if not isinstance(statement, ClauseElement):
        return _Known((), ())
    alike: dict[Encrypted, None] = {}
    _look_through(statement, statement, alike)
    if alike:
        _check_tenant_is_named(statement, alike)
    return _Known(rechecks_of(statement, compiled), list(alike))


def _check_tenant_is_named(statement: ClauseElement, alike: Iterable[Encrypted]) -> None:
    """Rows that are compared with each other are one tenant's: another tenant's are sealed otherwise.

    The columns of one comparison keep to one tenant together, so that it is enough to name it for one.
    """
    scopes = {type_: type_.bound.binding.scopes.get(type_.bound.table) for type_ in alike}
    tenants = [
        scope.tenant
        for type_, scope in scopes.items()
        if scope is not None and scope.tenant is not None and scope.tenant.table is type_.bound.table
    ]
    if len(tenants) < len(scopes):
        # A model that leaves it to the scope, or to another table, has no column here to name it by.
        return
    for each in visitors.iterate(statement):
        if isinstance(each, BinaryExpression) and each.operator is operators.eq:
            sides = (each.left, each.right)
            named = any(_is(side, tenant) for side in sides for tenant in tenants)
            if named and any(isinstance(side, BindParameter) for side in sides):
                return
    raise UnsupportedQuery(
        f"the statement compares rows with each other by {next(iter(alike)).field}, which is sealed "
        f"otherwise for each tenant: say whose rows they are, by a condition that {tenants[0]} is equal to "
        "one value"
    )


def _check_one_key(type_: Encrypted) -> None:
    column = type_.bound
    if len(keys_of_search(column.binding, column.table).usable) > 1:
        raise UnsupportedQuery(
            f"the index key under which {column.field} is sealed is being rotated, so that equal values have "
            "two ciphertexts: until `fieldvault index rebuild` and `fieldvault index drop` are done, compare "
            "with values, or join and group in Python"
        )


def _is(element: Any, column: Column[Any]) -> bool:
    """Whether it shows a table's column; the ORM's notes make another object of it."""
    shown = origin(element)[0]
    return shown is not None and (shown.table.key, shown.key) == (column.table.key, column.key)


def _look_through(element: Any, owner: Any, alike: dict[Encrypted, None]) -> None:
    """``owner`` is the nearest element above that does something with what it holds."""
    if isinstance(element, Select):
        _check_select(element, alike)
    elif isinstance(element, CompoundSelect):
        _check_order(element, alike)
        _check_parts(element)
        if element.keyword in _DISTINCT_SETS:
            for select in element.selects:
                _check_distinct(select, element.keyword.value, alike)
    for child in element.get_children():
        if isinstance(child, Table):
            continue
        if isinstance(child, _TRANSPARENT):
            _look_through(child, owner, alike)
            continue
        if _is_encrypted(child) and not _may_hold(owner, child):
            if not _may_compare(owner, child):
                raise _refusal(child, _what(owner))
            alike[child.type] = None
        _look_through(child, child, alike)


def _may_compare(owner: Any, held: Any) -> bool:
    """Whether ciphertexts answer for their values."""
    if not is_deterministic(held.type):
        return False
    if isinstance(owner, BinaryExpression):
        return are_comparable(owner.left, owner.operator, owner.right)
    if isinstance(owner, UnaryExpression):
        return owner.operator is operators.distinct_op
    return type(owner).__name__ == "DistinctOnClause"


def _may_hold(owner: Any, held: Any) -> bool:
    if isinstance(owner, Match):
        return True
    if isinstance(owner, BinaryExpression):
        return owner.operator in (operators.is_, operators.is_not) and isinstance(owner.right, Null)
    if isinstance(owner, FunctionElement):
        return getattr(owner, "name", "") == "count"
    if isinstance(owner, Case):
        results = [result for _, result in owner.whens] + [owner.else_]
        same = all(each is None or is_null(each) or _field(each) == _field(held) for each in results)
        return owner.value is not held and same
    # PostgreSQL's, of SQLAlchemy 2.1: by name, since 2.0 has nothing to import.
    if type(owner).__name__ == "DistinctOnClause":
        return False
    return not isinstance(owner, ColumnElement) or isinstance(owner, ScalarSelect | Exists | TypeCoerce)


def _check_select(select: Select[Any], alike: dict[Encrypted, None]) -> None:
    _check_order(select, alike)
    if select._distinct:
        _check_distinct(select, "DISTINCT", alike)
    for each in map(_ordered, select._distinct_on):
        _check_alike(each, "DISTINCT ON", alike)


def _check_alike(element: Any, what: str, alike: dict[Encrypted, None]) -> None:
    if _is_encrypted(element):
        if not is_deterministic(element.type):
            raise _refusal(element, what)
        alike[element.type] = None


def _check_order(select: Any, alike: dict[Encrypted, None]) -> None:
    for what, clauses in (("ORDER BY", select._order_by_clauses), ("GROUP BY", select._group_by_clauses)):
        for clause in clauses:
            each = _ordered(clause)
            if isinstance(each, str):
                each = select.selected_columns.get(each)
            if what == "GROUP BY":
                _check_alike(each, what, alike)
            elif _is_encrypted(each):
                raise _refusal(each, what)


def _check_distinct(select: Any, what: str, alike: dict[Encrypted, None]) -> None:
    """Rows that have their primary key with them are distinct whatever else is in them."""
    chosen = select.selected_columns
    for column in chosen:
        if not _is_encrypted(column):
            continue
        key = getattr(getattr(column, "table", None), "primary_key", None)
        if not key or any(chosen.corresponding_column(part) is None for part in key):
            _check_alike(column, what, alike)


def _check_parts(union: CompoundSelect[Any]) -> None:
    """One column of a union has one type, and so opens the values of one field."""
    for column in zip(*(part.selected_columns for part in union.selects), strict=False):
        shown = [each for each in column if not is_null(each)]
        for each in shown:
            if _is_encrypted(each) and any(_field(other) != _field(each) for other in shown):
                raise UnsupportedQuery(
                    f"the parts of a {union.keyword.value} put {_field(each)}, which is encrypted, and "
                    "something else into one column; give the columns the same field, or send two statements"
                )


def _field(element: Any) -> str | None:
    return element.type.field if _is_encrypted(element) else None


def _ordered(clause: Any) -> Any:
    """What an ordering orders by, without direction and label: an expression, or the name of a column."""
    if isinstance(clause, UnaryExpression | Grouping | Label | _label_reference):
        return _ordered(clause.element)
    return clause.element if isinstance(clause, _textual_label_reference) else clause


def _is_encrypted(element: Any) -> bool:
    return (
        isinstance(element, ColumnElement)
        and isinstance(element.type, Encrypted)
        and not isinstance(element, BindParameter | Null)
    )


def _what(owner: Any) -> str:
    operator = getattr(owner, "operator", None) or getattr(owner, "modifier", None)
    name = getattr(owner, "name", None) or getattr(operator, "__name__", None)
    return str(name or type(owner).__name__)


def _refusal(element: Any, what: str) -> UnsupportedQuery:
    field = element.type.field or element
    return UnsupportedQuery(
        f"{field} is encrypted, so the database cannot do {what!r} with it; do that in Python with the rows "
        f"that other columns select, or ask is_(None){indexes_to_ask(element.type)}"
    )
