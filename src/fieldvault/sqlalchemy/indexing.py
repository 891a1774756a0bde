"""The cells of blind indexes: filled with the rows that they index, and asked for in queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Dialect

from fieldvault.errors import FieldVaultError, UnsupportedQuery
from fieldvault.sqlalchemy.bound_index import BoundIndex
from fieldvault.sqlalchemy.carrier import carried
from fieldvault.sqlalchemy.cells import cell_of
from fieldvault.sqlalchemy.uniqueness import is_unique

__all__ = ["Content", "Filler", "content_maker"]

Content = Callable[[Sequence[Any]], bytes | None]
"""Values of the indexed columns to what their token is made of; ``None`` where there is to be none."""


def content_maker(index: BoundIndex, dialect: Dialect) -> Content:
    """A function that makes the content of an index's tokens: values as they would be sealed, normalized.

    It raises ``UnsupportedValue`` for a value that a column's type, or a normalizer, does not take; the
    message has the field, never the value.
    """
    sources: Sequence[Any] = index.sources
    converts = [source.type.bound.coercion(dialect).into for source in sources]
    normalized = index.spec.normalized

    def content(values: Sequence[Any]) -> bytes | None:
        try:
            plain = [carried(each) for each in values]
            if any(each is None for each in plain):
                return None
            return normalized([convert(each) for convert, each in zip(converts, plain, strict=True)])
        except FieldVaultError as error:
            refusal = error
        # A traceback that prints locals shows no plaintext: neither this frame nor those below have one.
        values = plain = ()  # type: ignore[assignment]
        raise refusal.with_traceback(None)

    return content


class Filler:
    """Fills one blind index of the rows of one statement."""

    def __init__(self, index: BoundIndex, dialect: Dialect) -> None:
        self._index = index
        self._keys = [str(source.key) for source in index.sources]
        self._content = content_maker(index, dialect)
        self._unique = is_unique(index.table, index.key)

    def fill(self, row: Mapping[str, Any], tenant: str, into: dict[str, Any], *, whole: bool) -> None:
        """Put the token of what a row holds for the indexed columns into its dictionary.

        ``whole`` says that what the row leaves out is NULL; otherwise the database has it.

        Raises:
            UnsupportedQuery: an index of several columns is to be filled from some of them.
            UnsupportedValue: a value that a normalizer does not take.
            KeyShredded, KeySuspended, KMSError, KeyStoreError: the tenant's index key cannot be had.
        """
        index, keys = self._index, self._keys
        given = sum(key in row for key in keys)
        if not given:
            return
        if given < len(keys) and not whole:
            raise UnsupportedQuery(
                f"{index.table.name}.{index.column.name} indexes {', '.join(keys)} together, and the "
                "statement gives some of them only; give all, or change the loaded object and flush it"
            )
        content = self._content([row.get(key) for key in keys])
        into[index.key] = (
            None
            if content is None
            else cell_of(
                index.binding.vault.ring.index_keys(tenant),
                index.spec,
                content,
                unique=self._unique,
            )
        )
