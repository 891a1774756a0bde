"""Bulk inserts into joined tables: a dictionary becomes a row in each, only one of which says whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table
from sqlalchemy.orm import Mapper, ORMExecuteState

from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import binding_of, canonical
from fieldvault.sqlalchemy.carrier import Carrier
from fieldvault.sqlalchemy.flush import encrypted_of
from fieldvault.sqlalchemy.identity import row_of

__all__ = ["carry_bulk"]


def carry_bulk(state: ORMExecuteState) -> Any:
    """Listener of ``do_orm_execute``: values get carriers while all of their row is at hand."""
    mapper = state.bind_mapper
    scope = None if mapper is None else getattr(mapper.class_, "__vault__", None)
    if not state.is_insert or mapper is None or len(mapper.tables) < 2 or not isinstance(scope, KeyScope):
        return None
    encrypted = encrypted_of(mapper)
    rows = state.parameters if isinstance(state.parameters, list) else None
    if not encrypted or not rows:
        return None
    return state.invoke_statement(params=[_carried(mapper, scope, encrypted, row) for row in rows])


def _carried(
    mapper: Mapper[Any], scope: KeyScope, encrypted: Mapping[str, Any], row: Mapping[str, Any]
) -> dict[str, Any]:
    plain = {key: row[key] for key in encrypted if row.get(key) is not None}
    table = mapper.local_table
    if not plain or not isinstance(table, Table):
        return {}
    binding = binding_of(table.metadata)
    ambient = binding.vault.ambient.get()
    tenant, subject = (
        None if name is None else canonical(mapper.columns[name], row.get(name, around))
        for name, around in ((scope.tenant, ambient.tenant), (scope.subject, ambient.subject))
    )
    owner = binding.scope_of_row(scope, tenant, subject, table.name)
    return {
        key: Carrier(value, *owner, row_of(mapper, encrypted[key], row.get)) for key, value in plain.items()
    }
