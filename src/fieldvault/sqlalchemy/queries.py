"""Statements that ask the database about ciphertexts: refused before they are sent.

A comparator sees the operators of a column as a query is built. It does not see functions, casts, ordering,
grouping, DISTINCT, nor a column that stands on the right-hand side. So each statement is looked through once,
when it was compiled: an encrypted column may be selected, written, counted and asked for NULL, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CompoundSelect, Exists, ScalarSelect, Select, Table
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.sql import operators
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
from fieldvault.sqlalchemy.origins import is_null
from fieldvault.sqlalchemy.recheck import Recheck, rechecks_of
from fieldvault.sqlalchemy.types import Encrypted

__all__ = ["refuse_questions"]

_MEMO = "fieldvault_rechecks"

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
        UnsupportedQuery: the database would compare, order, group or compute with ciphertexts, or answer for
            rows that only look alike.
    """
    compiled = getattr(context, "compiled", None)
    if compiled is None:
        return ()
    known: Sequence[Recheck] | None = compiled.__dict__.get(_MEMO)
    if known is not None:
        return known
    state = getattr(compiled, "compile_state", None)
    # What an ORM query becomes has the ordering of its eager loads, and its entities' columns, in it.
    statement = getattr(state, "statement", None)
    if not isinstance(statement, ClauseElement):
        statement = compiled.statement
    found: Sequence[Recheck] = ()
    if isinstance(statement, ClauseElement):
        _look_through(statement, statement)
        found = rechecks_of(statement, compiled)
    compiled.__dict__[_MEMO] = found
    return found


def _look_through(element: Any, owner: Any) -> None:
    """``owner`` is the nearest element above that does something with what it holds."""
    if isinstance(element, Select):
        _check_select(element)
    elif isinstance(element, CompoundSelect):
        _check_order(element)
        _check_parts(element)
        if element.keyword in _DISTINCT_SETS:
            for select in element.selects:
                _check_distinct(select, element.keyword.value)
    for child in element.get_children():
        if isinstance(child, Table):
            continue
        if isinstance(child, _TRANSPARENT):
            _look_through(child, owner)
            continue
        if _is_encrypted(child) and not _may_hold(owner, child):
            raise _refusal(child, _what(owner))
        _look_through(child, child)


def _may_hold(owner: Any, held: Any) -> bool:
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


def _check_select(select: Select[Any]) -> None:
    _check_order(select)
    if select._distinct:
        _check_distinct(select, "DISTINCT")
    for each in map(_ordered, select._distinct_on):
        if _is_encrypted(each):
            raise _refusal(each, "DISTINCT ON")


def _check_order(select: Any) -> None:
    for what, clauses in (("ORDER BY", select._order_by_clauses), ("GROUP BY", select._group_by_clauses)):
        for clause in clauses:
            each = _ordered(clause)
            if isinstance(each, str):
                each = select.selected_columns.get(each)
            if _is_encrypted(each):
                raise _refusal(each, what)


def _check_distinct(select: Any, what: str) -> None:
    """Rows that have their primary key with them are distinct whatever else is in them."""
    chosen = select.selected_columns
    for column in chosen:
        if not _is_encrypted(column):
            continue
        key = getattr(getattr(column, "table", None), "primary_key", None)
        if not key or any(chosen.corresponding_column(part) is None for part in key):
            raise _refusal(column, what)


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
        "that other columns select, or ask is_(None)"
    )
