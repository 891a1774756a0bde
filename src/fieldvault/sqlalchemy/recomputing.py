"""What the rows of a table should hold under their tenant's active index key, and do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, LargeBinary, Table, Text, select, type_coerce
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from fieldvault.batches import open_many
from fieldvault.envelope import HEADER_SIZE, KEY_ID_START
from fieldvault.errors import KeyShredded, MalformedCiphertext
from fieldvault.keys.indexing import IndexKeys
from fieldvault.sqlalchemy.binding import binding_of, encrypted_columns, stored_name
from fieldvault.sqlalchemy.bound_index import BoundIndex, indexes_of
from fieldvault.sqlalchemy.deterministic import cells_sought, is_deterministic
from fieldvault.sqlalchemy.exactly import exactly
from fieldvault.sqlalchemy.identity import identities, key_of
from fieldvault.sqlalchemy.indexing import content_maker
from fieldvault.sqlalchemy.opening import as_blob

__all__ = ["Recomputer"]

_SHREDDED = object()
"""Stands for a value that nobody can read any more."""


class Recomputer:
    """Finds what is to be changed in the rows of one table, of one tenant.

    ``statement`` selects the rows: the primary key, then the cells that matter, as they are stored. ``plain``
    has the stored type of each of these cells, by the name of its column.
    """

    def __init__(self, table: Table, source: Any, tenant: str, dialect: Dialect) -> None:
        self.table = table
        self._tenant = tenant
        # Deterministic values that nobody can read any more, by column and primary key.
        self.lost: set[tuple[str, tuple[Any, ...]]] = set()
        self._dialect = dialect
        self._binding = binding_of(table.metadata)
        self._indexes = indexes_of(table)
        self._fixed = [each for each in encrypted_columns(table) if is_deterministic(each.type)]
        sources = {each for index in self._indexes for each in index.sources}
        self._encrypted = [
            each for each in encrypted_columns(table) if each in sources or is_deterministic(each.type)
        ]
        self._columns: list[Column[Any]] = [*self._encrypted, *(index.column for index in self._indexes)]
        self.plain: Mapping[str, TypeEngine[Any]] = {each.name: _stored(each) for each in self._columns}
        scope = self._binding.scopes.get(table)
        shown = [type_coerce(each, self.plain[each.name]).label(each.name) for each in self._columns]
        self.statement = select(*key_of(table), *shown).select_from(source)
        if source is not table:
            # An outer join has rows in which there is none of the table's.
            self.statement = self.statement.where(key_of(table)[0].is_not(None))
        self._is_said = scope is not None and scope.tenant is not None
        if scope is not None and scope.tenant is not None:
            self.statement = self.statement.where(exactly(scope.tenant, stored_name(scope.tenant, tenant)))

    def cells(self, row: Sequence[Any]) -> dict[str, Any]:
        """What a row was read with, by the names of columns."""
        return dict(zip(self.plain, row[len(key_of(self.table)) :], strict=True))

    def own(self, page: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The rows of a page that are the tenant's, by the keys of their values where no column says it.

        A row without a value has nothing to rebuild.
        """
        if self._is_said:
            return page
        named = [self._key_ids(self.cells(row)) for row in page]
        wanted = list({key_id for ids in named for key_id in ids if key_id is not None})
        found = self._binding.vault.ring.store.fetch(wanted).records if wanted else {}
        # What cannot be told is kept, and opening it says what is wrong.
        owners = {key_id: found[key_id].tenant if key_id in found else self._tenant for key_id in wanted}
        return [
            row
            for row, ids in zip(page, named, strict=True)
            if any(key_id is None or owners[key_id] == self._tenant for key_id in ids)
        ]

    def _key_ids(self, cells: Mapping[str, Any]) -> set[bytes | None]:
        """The key ids of a row's ciphertexts; ``None`` stands for what is no ciphertext."""
        ids: set[bytes | None] = set()
        for column in self._encrypted:
            cell = cells[column.name]
            if cell is not None:
                try:
                    ids.add(_key_id(column, cell))
                except MalformedCiphertext:
                    ids.add(None)
        return ids

    def changes(self, page: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """What is to be written into each row of a page, by names of columns; nothing where it is right."""
        keys = self._binding.vault.ring.index_keys(self._tenant)
        rows = [self.cells(row) for row in page]
        values = {each.name: self._opened(each, page, rows) for each in self._encrypted}
        made: list[dict[str, Any]] = [{} for _ in rows]
        for index in self._indexes:
            for row, put, token in zip(rows, made, self._tokens(index, keys, values), strict=True):
                former = row[index.column.name]
                if token != (None if former is None else bytes(former)):
                    put[index.column.name] = token
        for each in self._fixed:
            for whole, row, put, value in zip(page, rows, made, values[each.name], strict=True):
                cell = row[each.name]
                if cell is not None and value is _SHREDDED:
                    self.lost.add((each.name, tuple(whole[: len(key_of(self.table))])))
                elif cell is not None and not self._is_active(each, cell, keys):
                    put[each.name] = cells_sought(each.type.bound, self._dialect, keys, [value])[0][0]  # type: ignore[attr-defined]
        return made

    def _opened(
        self, column: Any, page: Sequence[Sequence[Any]], rows: Sequence[Mapping[str, Any]]
    ) -> list[Any]:
        """A column's values, as the application has them."""
        bound = column.type.bound
        cells = [row[column.name] for row in rows]
        key = zip(*(row[: len(key_of(self.table))] for row in page), strict=True)
        opened = open_many(
            self._binding.vault.ring,
            [None if cell is None else as_blob(cell, bound.textual) for cell in cells],
            bound.field,
            self._tenant,
            None,
            rows=identities(list(key)) if bound.bind_row else None,
            erased=_erased,
        )
        out = bound.coercion(self._dialect).out
        return [each if out is None or each is None or each is _SHREDDED else out(each) for each in opened]

    def _tokens(
        self, index: BoundIndex, keys: IndexKeys, values: Mapping[str, Sequence[Any]]
    ) -> list[bytes | None]:
        content = content_maker(index, self._dialect)
        tokens: list[bytes | None] = []
        for row in zip(*(values[each.name] for each in index.sources), strict=True):
            made = None if any(each is _SHREDDED for each in row) else content(row)
            tokens.append(None if made is None else keys.tokens(index.spec, made)[0])
        return tokens

    def _is_active(self, column: Any, cell: Any, keys: IndexKeys) -> bool:
        return _key_id(column, cell) == keys.active.record.key_id


def _key_id(column: Any, cell: Any) -> bytes:
    return as_blob(cell, column.type.bound.textual)[KEY_ID_START:HEADER_SIZE]


def _erased(_: KeyShredded) -> Any:
    return _SHREDDED


def _stored(column: Column[Any]) -> TypeEngine[Any]:
    return Text() if getattr(column.type, "storage", "binary") == "text" else LargeBinary()
