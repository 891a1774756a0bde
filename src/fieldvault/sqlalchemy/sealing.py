"""Cells of encrypted columns on their way in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy.engine import Dialect

from fieldvault.batches import seal_many
from fieldvault.envelope import to_text
from fieldvault.errors import FieldVaultError, UnsupportedQuery, UnsupportedValue
from fieldvault.sqlalchemy.binding import Owner
from fieldvault.sqlalchemy.bound import BoundColumn
from fieldvault.sqlalchemy.carrier import Claim, Sealed, carried
from fieldvault.sqlalchemy.deterministic import column_fixer

__all__ = ["SealColumn", "bind_processor", "column_sealer"]

_READY = frozenset({Sealed, Claim})
_MakeCells = Callable[[Sequence[Any], Sequence[Owner] | Owner, Sequence[bytes] | None], list[Sealed | None]]


class SealColumn(Protocol):
    """Values, whose each is, and the rows that they are bound to, to cells; ``None`` stays ``None``."""

    def __call__(
        self, values: Sequence[Any], owners: Sequence[Owner] | Owner, rows: Sequence[bytes] | None = None, /
    ) -> list[Sealed | None]:
        """The cells, in the order of the values."""
        ...


def column_sealer(column: BoundColumn, dialect: Dialect) -> SealColumn:
    """A function that seals values of one column, each under its owner's key.

    It raises ``UnsupportedValue`` for a value that the column's type does not take; it names field and class,
    never the value.
    """
    make = column_fixer(column, dialect) if column.deterministic else _sealer(column, dialect)

    def seal(
        values: Sequence[Any], owners: Sequence[Owner] | Owner, rows: Sequence[bytes] | None = None
    ) -> list[Sealed | None]:
        try:
            return make(values, owners, rows)
        except UnsupportedValue as error:
            message = str(error)
            refusal: FieldVaultError = UnsupportedValue(
                message if message.startswith(column.field) else f"{column.field}: {message}"
            )
        except FieldVaultError as error:
            refusal = error
        # A traceback that prints locals shows no plaintext: neither this frame nor those below have one.
        values = ()
        raise refusal.with_traceback(None)

    return seal


def _sealer(column: BoundColumn, dialect: Dialect) -> _MakeCells:
    coercion = column.coercion(dialect)
    into, as_is = coercion.into, coercion.as_is

    def seal(
        values: Sequence[Any], owners: Sequence[Owner] | Owner, rows: Sequence[bytes] | None
    ) -> list[Sealed | None]:
        vault = column.binding.vault
        if set(map(type, values)) != {as_is}:
            values = [
                each if each is None or each.__class__ is as_is else into(each)
                for each in map(carried, values)
            ]
        cells: list[Any] = seal_many(
            vault.ring, column.suite_in(vault), column.padding, values, column.field, owners, rows
        )
        if column.textual:
            cells = [None if cell is None else to_text(cell) for cell in cells]
        if None in cells:
            return [None if cell is None else Sealed((cell,)) for cell in cells]
        return list(map(Sealed, zip(cells, strict=False)))

    return seal


def bind_processor(column: BoundColumn) -> Callable[[Any], Any]:
    """Lets through what was sealed for its row, and nothing else.

    All that writes is sealed before SQLAlchemy binds it. What comes here in the clear came a way that nobody
    thought of, and whose it is nobody knows.
    """

    def process(value: Any) -> Any:
        if value.__class__ in _READY:
            return value[0]
        if value is None:
            return None
        # Models that have no vault yet are told so.
        _ = column.binding.vault
        raise UnsupportedQuery(
            f"{column.field} is encrypted, and the statement does not show which row a value is for; write "
            "it by insert() or update() of its table, and compare with it in Python"
        )

    return process
