"""What a query may ask of an encrypted column."""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Null
from sqlalchemy.types import TypeEngine

from fieldvault.errors import UnsupportedQuery

__all__ = ["PresenceComparator"]

_PRESENCE = (operators.is_, operators.is_not, operators.eq, operators.ne)


class PresenceComparator(TypeEngine.Comparator[Any]):
    """Lets a query ask whether there is a value, and nothing about it: ciphertexts of one value differ."""

    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> Any:
        """NULL or not NULL.

        Raises:
            UnsupportedQuery: any other question.
        """
        if op in _PRESENCE and (other[0] is None or isinstance(other[0], Null)):
            return super().operate(op, *other, **kwargs)
        return self._refuse(op)

    def reverse_operate(self, op: operators.OperatorType, other: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Refused as ``operate`` does."""
        self._refuse(op)

    def _refuse(self, op: operators.OperatorType) -> NoReturn:
        name = getattr(op, "__name__", str(op))
        raise UnsupportedQuery(
            f"{self.expr} is encrypted, so the database cannot answer {name!r} on it; "
            "select the rows by other columns and compare in Python, or ask is_(None)"
        )
