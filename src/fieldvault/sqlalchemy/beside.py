"""``beside``: from one column of a row to another, through aliases and subqueries."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column

__all__ = ["beside"]

_NOTES = ("entity_namespace", "parententity", "parentmapper", "remote")
"""Annotations by which the ORM adapts columns to aliases, and a relationship its remote side."""


def beside(expression: Any, column: Column[Any]) -> Any:
    """Another column of the row that an expression is of; ``None`` where that is not to be had.

    The ORM adapts it to aliases where it adapts the expression.
    """
    found = _of_the_same_row(expression, column)
    notes = {name: expression._annotations[name] for name in _NOTES if name in expression._annotations}
    return found if found is None or not notes else found._annotate(notes)


def _of_the_same_row(expression: Any, column: Column[Any]) -> Any:
    table = getattr(expression, "table", None)
    found = [] if table is None else [each for each in table.c if column in each.base_columns]
    if len(found) < 2:
        return found[0] if found else None
    # A subquery shows several rows side by side.
    shown = _of_the_same_row(expression._proxies[0], column)
    return next((each for each in found if shown in set(each._proxies)), None)
