"""Keys for a flush: fetched before its first statement, which may take locks that others wait for."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.orm import InstanceState, Session, UOWTransaction, attributes

from fieldvault.errors import FieldVaultError
from fieldvault.keys.records import KeySlot
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import binding_of, canonical, name_of
from fieldvault.sqlalchemy.bound_index import indexes_of
from fieldvault.sqlalchemy.deterministic import is_deterministic
from fieldvault.sqlalchemy.flush import encrypted_of, set_default
from fieldvault.sqlalchemy.waiting import fetch_index_keys, fetch_slots
from fieldvault.vault import Vault

__all__ = ["fetch_keys"]


def fetch_keys(session: Session, context: UOWTransaction, instances: Any) -> None:
    """Listener of ``before_flush``: the keys of all objects that are to be written, in one batch.

    Of objects that do not know yet whose they are, the statement that writes them fetches the keys.
    """
    wanted: dict[Vault, list[KeySlot]] = {}
    indexed: dict[Vault, list[str]] = {}
    for target in (*session.new, *session.dirty):
        state = attributes.instance_state(target)
        table = state.mapper.local_table
        scope = getattr(state.mapper.class_, "__vault__", None)
        if not isinstance(table, Table) or not isinstance(scope, KeyScope | None):
            continue
        vault = binding_of(table.metadata).current
        slot = None if vault is None else _slot(vault, state, scope, target)
        if vault is None or slot is None:
            continue
        columns = encrypted_of(state.mapper).values()
        by_index_key = [is_deterministic(column.type) for column in columns]
        if not all(by_index_key):
            wanted.setdefault(vault, []).append(slot)
        if any(by_index_key) or any(map(indexes_of, {column.table for column in columns})):
            indexed.setdefault(vault, []).append(slot.tenant)
    for vault, slots in wanted.items():
        fetch_slots(vault, slots)
    for vault, tenants in indexed.items():
        _have_index_keys(vault, tenants)


def _have_index_keys(vault: Vault, tenants: Sequence[str]) -> None:
    try:
        fetch_index_keys(vault, tenants)
    except FieldVaultError:
        # The statement that wants them meets it again, and says of which row.
        return


def _slot(vault: Vault, state: InstanceState[Any], scope: KeyScope | None, target: Any) -> KeySlot | None:
    """Where an object's values get their key from, if there are values to seal and it knows that already."""
    written = [
        key
        for key in encrypted_of(state.mapper)
        if state.dict.get(key) is not None
        and (state.key is None or (key in state.committed_state and state.attrs[key].history.has_changes()))
    ]
    if not written:
        return None
    ambient = vault.ambient.get()
    around = ambient.tenant or vault.default_tenant
    if scope is None:
        return None if around is None else KeySlot(around, ambient.subject)
    tenant = around if scope.tenant is None else _name(state, scope.tenant, target)
    if ambient.tenant not in (None, tenant):
        # The flush is about to refuse it.
        return None
    subject = None if scope.subject is None else _name(state, scope.subject, target)
    if tenant is None or (subject is None and scope.subject is not None):
        return None
    return KeySlot(tenant, subject)


def _name(state: InstanceState[Any], name: str, target: Any) -> str | None:
    if state.key is None and state.dict.get(name) is None:
        set_default(target, name, state.mapper.attrs[name].columns)
    value = state.dict.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
        return None
    return name_of(canonical(state.mapper.columns[name], value), "the scope of an object")
