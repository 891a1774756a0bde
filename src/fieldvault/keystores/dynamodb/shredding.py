"""Shredding in DynamoDB: one transaction, or several where a scope has more keys than one holds.

The first sets the fence, locks the scope's slots and raises the generation. Of keys that it has no room for,
the head of the store says that their scope is being wiped: no read shows their material from then on, whether
this process goes on or not. The last one takes that back. Asked again, a shred goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState
from fieldvault.keystores.dynamodb import actions
from fieldvault.keystores.dynamodb.actions import Action
from fieldvault.keystores.dynamodb.heads import served
from fieldvault.keystores.dynamodb.items import (
    HEAD,
    Slot,
    fence_address,
    fence_item,
    scope_name,
    slot_address,
    tenant_address,
)
from fieldvault.keystores.dynamodb.reading import raw_records, slots_of
from fieldvault.keystores.dynamodb.table import MAX_ACTIONS, Table, contended

__all__ = ["lock", "shred"]

_ROOM = MAX_ACTIONS - 8
"""For keys in the first transaction, beside fence, tenant, slots, generation and change."""


def shred(table: Table, fence: Fence) -> Sequence[bytes]:
    """See ``KeyStore.shred``."""
    return contended(partial(_shred, table, fence))


def _shred(table: Table, fence: Fence) -> Sequence[bytes]:
    scope = fence.tenant, fence.subject
    seen = served(table)
    fenced = table.get(fence_address(*scope)) is not None
    slots = slots_of(table, [scope])
    records = raw_records(table, (key_id for slot in slots.values() for key_id in slot.keys))
    # What says how a slot stands comes first: it is wiped in the step that locks the slot.
    newest = {slot.newest for slot in slots.values()}
    doomed = sorted(
        (record for record in records.values() if record.state is not KeyState.DESTROYED),
        key=lambda record: (record.state is not KeyState.ACTIVE, record.key_id not in newest),
    )
    if not fenced:
        first, doomed = doomed[:_ROOM], doomed[_ROOM:]
        change = Change(*scope, whole_tenant=fence.subject is None)
        name = scope_name(*scope) if doomed else None
        tenant = tenant_address(fence.tenant)
        new = [] if table.get(tenant) else [actions.exists_not(tenant.key)]
        table.transact(
            [
                actions.exists_not(fence_item(fence)),
                *new,
                *(lock(slot, noted) for slot, noted in slots.items()),
                *actions.note(seen.generation, [change], tenants=len(new), wiping=name),
                *_wipes(first),
            ]
        )
    if doomed or scope_name(*scope) in seen.wiping:
        _wipe(table, scope_name(*scope), doomed)
    ordered = sorted(records.values(), key=lambda record: (record.purpose, record.version))
    return [record.key_id for record in ordered]


def lock(slot: KeySlot, noted: Slot) -> Action:
    """Let a slot never be filled again, if it is as it was read."""
    conditions = "attribute_not_exists(newest)" if noted.newest is None else "newest = :newest"
    values: Mapping[str, object] = {":yes": {"BOOL": True}}
    if noted.newest is not None:
        values = {**values, ":newest": {"B": noted.newest}}
    expression = "SET fenced = :yes REMOVE active, suspended"
    return actions.update(slot_address(slot), expression, conditions, values)


def _wipe(table: Table, name: str, doomed: Sequence[KeyRecord]) -> None:
    """Wipe keys behind a fence; with the last of them the scope is done."""
    room = MAX_ACTIONS - 1
    parts = [doomed[start : start + room] for start in range(0, len(doomed), room)] or [[]]
    for part in parts[:-1]:
        table.transact(_wipes(part))
    values = {":name": {"SS": [name]}}
    done = actions.update(HEAD, "DELETE wiping :name", "attribute_exists(pk)", values)
    table.transact([*_wipes(parts[-1]), done])


def _wipes(records: Sequence[KeyRecord]) -> list[Action]:
    return [actions.wipe(record.key_id) for record in records]
