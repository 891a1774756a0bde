"""Keys for a flush: fetched before its first statement, which may take locks that others wait for."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Table
from sqlalchemy.orm import InstanceState, Mapper, Session, UOWTransaction, attributes

from fieldvault.errors import FieldVaultError
from fieldvault.keys.records import KeySlot
from fieldvault.scope import KeyScope
from fieldvault.sqlalchemy.binding import binding_of, canonical, encrypted_columns, name_of
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
        if not isinstance(table, Table) or not isinstance(scope, KeyScope):
            continue
        vault = binding_of(table.metadata).current
        slot = None if vault is None else _slot(vault, state, scope, target)
        if vault is not None and slot is not None:
            wanted.setdefault(vault, []).append(slot)
            if _wants_index_keys(state.mapper):
                indexed.setdefault(vault, []).append(slot.tenant)
    for vault, slots in wanted.items():
        fetch_slots(vault, slots)
    for vault, tenants in indexed.items():
        for tenant in dict.fromkeys(tenants):
            _have_index_keys(vault, tenant)


def _have_index_keys(vault: Vault, tenant: str) -> None:
    try:
        fetch_index_keys(vault, [tenant])
    except FieldVaultError:
        # The statement that wants them meets it again, and says of which row.
        return


def _wants_index_keys(mapper: Mapper[Any]) -> bool:
    tables = [table for table in mapper.tables if isinstance(table, Table)]
    return any(
        indexes_of(table) or any(is_deterministic(column.type) for column in encrypted_columns(table))
        for table in tables
    )


def _slot(vault: Vault, state: InstanceState[Any], scope: KeyScope, target: Any) -> KeySlot | None:
    """Where an object's values get their key from, if there are values to seal and it knows that already."""
    written = [
        key
        for key in encrypted_of(state.mapper)
        if state.dict.get(key) is not None
        and (state.key is None or (key in state.committed_state and state.attrs[key].history.has_changes()))
    ]
    if not written:
        return None
    around = vault.ambient.get().tenant
    tenant = around or vault.default_tenant if scope.tenant is None else _name(state, scope.tenant, target)
    if around not in (None, tenant):
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
