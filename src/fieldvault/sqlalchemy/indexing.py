"""The cells of blind indexes: filled with the rows that they index, and asked for in queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Dialect

from fieldvault.errors import FieldVaultError, UnsupportedQuery
from fieldvault.sqlalchemy.bound_index import BoundIndex
from fieldvault.sqlalchemy.carrier import Carrier, Sealed

__all__ = ["content_of", "fill"]


def fill(
    indexes: Sequence[BoundIndex],
    row: Mapping[str, Any],
    tenant: str,
    dialect: Dialect,
    into: dict[str, Any],
    *,
    whole: bool,
) -> None:
    """Put the tokens of what a row holds for indexed columns into its dictionary, by the keys of the indexes.

    ``whole`` says that what the row leaves out is NULL; otherwise the database has it.

    Raises:
        UnsupportedQuery: an index of several columns is to be filled from some of them.
        UnsupportedValue: a value that a normalizer does not take; the message has the field, never the value.
        KeyShredded, KeySuspended, KMSError, KeyStoreError: the tenant's index key cannot be had.
    """
    for index in indexes:
        keys = [str(source.key) for source in index.sources]
        given = sum(key in row for key in keys)
        if not given:
            continue
        if given < len(keys) and not whole:
            raise UnsupportedQuery(
                f"{index.table.name}.{index.column.name} indexes {', '.join(keys)} together, and the "
                "statement gives some of them only; give all, or change the loaded object and flush it"
            )
        content = content_of(index, [row.get(key) for key in keys], dialect)
        if content is None:
            into[index.key] = None
        else:
            into[index.key] = Sealed(
                (index.binding.vault.ring.index_keys(tenant).token(index.spec, content),)
            )


def content_of(index: BoundIndex, values: Sequence[Any], dialect: Dialect) -> bytes | None:
    """What the token of values is made of: as they would be sealed, then normalized.

    Raises:
        UnsupportedValue: a column's type, or a normalizer, does not take a value.
    """
    try:
        if any(_plain(value) is None for value in values):
            return None
        return index.spec.normalized(
            [
                source.type.bound.coercion(dialect).into(_plain(value))  # type: ignore[attr-defined]
                for source, value in zip(index.sources, values, strict=True)
            ]
        )
    except FieldVaultError as error:
        refusal = error
    # A traceback that prints locals shows no plaintext: neither this frame nor those below have one.
    values = ()
    raise refusal.with_traceback(None)


def _plain(value: Any) -> Any:
    return value.value if value.__class__ is Carrier else value
