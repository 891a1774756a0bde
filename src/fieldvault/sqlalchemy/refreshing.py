"""Whose an object is, some of whose attributes are loaded later than the others."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, and_, select
from sqlalchemy.orm import InstanceState

from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import canonical
from fieldvault.sqlalchemy.identity import key_of
from fieldvault.sqlalchemy.origins import Reader

__all__ = ["key_readers", "refreshed", "scope_of"]


def refreshed(context: Any) -> InstanceState[Any] | None:
    """The object whose own attributes are loaded: refreshed, or a deferred or expired one of them."""
    options = context.execution_options.get("_sa_orm_load_options")
    state: InstanceState[Any] | None = getattr(options, "_refresh_state", None)
    return state


def key_readers(state: InstanceState[Any], table: Table) -> Sequence[Reader] | None:
    """What reads the primary key of its row in a table; ``None`` where the object has forgotten a part."""
    mapper, identity = state.mapper, state.identity
    if identity is None:
        return None
    # The model may have another primary key than the table, or the parts in another order.
    known = {}
    for column, part in zip(mapper.primary_key, identity, strict=True):
        for same in (column, *mapper._equivalent_columns.get(column, ())):
            if same in mapper._columntoproperty:
                known[mapper.get_property_by_column(same).key] = part
    names = [(column, mapper.get_property_by_column(column).key) for column in key_of(table)]
    parts = [(column, known.get(name, _known(state, name))) for column, name in names]
    if any(part is None for _, part in parts):
        return None
    return [partial(_repeated, canonical(column, part)) for column, part in parts]


def scope_of(
    state: InstanceState[Any], scope: KeyScope, connection: Connection, ask: bool
) -> tuple[Reader | None, Reader | None]:
    """What reads its tenant and its subject, for a statement that does not select them.

    Where the object has forgotten them, as after a commit, ``ask`` has the database asked for its row.
    """
    names = [name for name in (scope.tenant, scope.subject) if name is not None]
    known = {name: _known(state, name) for name in names}
    if ask and scope.tenant is not None and known[scope.tenant] is None:
        known.update(_asked(state, names, connection))
    return _reader(known.get(scope.tenant or "")), _reader(known.get(scope.subject or ""))


def _known(state: InstanceState[Any], name: str) -> Any:
    # As the row in the database has it: a change that waits for its flush is not there yet.
    return state.committed_state.get(name, state.dict.get(name))


def _asked(state: InstanceState[Any], names: list[str], connection: Connection) -> dict[str, Any]:
    mapper, identity = state.mapper, state.identity
    table = mapper.primary_key[0].table
    columns = {name: mapper.columns[name] for name in names}
    asked = {name: column for name, column in columns.items() if column.table is table}
    if identity is None or not asked or not isinstance(table, Table):
        return {}
    is_it = and_(*(column == part for column, part in zip(mapper.primary_key, identity, strict=True)))
    row = connection.execute(select(*asked.values()).where(is_it)).one_or_none()
    return {} if row is None else dict(zip(asked, row, strict=True))


def _reader(value: Any) -> Reader | None:
    return partial(_repeated, value) if isinstance(value, str | int | uuid.UUID) else None


def _repeated(value: Any, cells: Sequence[Sequence[Any]]) -> Sequence[Any]:
    return [value] * len(cells[0])
