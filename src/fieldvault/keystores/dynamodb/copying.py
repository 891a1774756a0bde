"""Being a copy of another key store (``Portable``): the fences first, then each slot in one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import Fence, KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores.dynamodb import actions
from fieldvault.keystores.dynamodb.actions import Action
from fieldvault.keystores.dynamodb.failures import Refused
from fieldvault.keystores.dynamodb.heads import head
from fieldvault.keystores.dynamodb.items import (
    HEAD,
    Slot,
    fence_address,
    fence_item,
    fence_of,
    key_item,
    slot_address,
    slot_item,
    slot_of,
    tenant_address,
)
from fieldvault.keystores.dynamodb.reading import raw_records, slots_of, tenants
from fieldvault.keystores.dynamodb.shredding import lock
from fieldvault.keystores.dynamodb.table import MAX_ACTIONS, Table, contended
from fieldvault.keystores.dynamodb.writing import raise_lease
from fieldvault.keystores.merging import behind_fence, merged

__all__ = ["begin", "fences", "finish", "take_over"]

_ROOM = MAX_ACTIONS - 1
"""Beside the head, which every transaction of a copy looks at."""


def fences(table: Table) -> Iterator[Fence]:
    """Every fence, tenant by tenant."""
    for tenant in tenants(table):
        for page in table.query(fence_address(tenant, None).pk):
            yield from map(fence_of, page)


def begin(table: Table) -> bool:
    """See ``Portable.begin_copy``."""
    seen = head(table)
    if seen.unfinished:
        return True
    condition = "#value = :zero AND attribute_not_exists(#tenants)"
    values = {":yes": {"BOOL": True}, ":zero": {"N": "0"}}
    step = actions.update(HEAD, "SET unfinished = :yes", condition, values, ["value", "tenants"])
    try:
        table.transact([step])
    except Refused:
        return head(table).unfinished
    return True


def finish(table: Table, *, generation: int, milliseconds: int) -> None:
    """See ``Portable.finish_copy``."""
    raise_lease(table, milliseconds)
    values = {":value": {"N": str(max(generation, 1))}}
    step = actions.update(
        HEAD, "SET #value = :value REMOVE unfinished", "attribute_exists(unfinished)", values, ["value"]
    )
    _transact(table, [step])


def take_over(table: Table, records: Sequence[KeyRecord], given: Sequence[Fence]) -> int:
    """See ``Portable.take_over``."""
    if not head(table).unfinished:
        raise _not_unfinished()
    names = {each.tenant for each in records} | {each.tenant for each in given}
    contended(partial(_enter, table, names))
    return _take_fences(table, given) + _take_records(table, records)


def _enter(table: Table, names: Iterable[str]) -> None:
    """Note the tenants that are not noted yet."""
    addresses = [tenant_address(name) for name in sorted(names)]
    there = table.get_many(addresses)
    missing = [actions.exists_not(each.key) for each in addresses if each not in there]
    for part in _parts([[each] for each in missing]):
        table.transact([actions.count_tenants(len(part), finished=False), *part])


def _take_fences(table: Table, given: Sequence[Fence]) -> int:
    places = {(each.tenant, each.subject): each for each in reversed(given)}
    there = table.get_many(fence_address(*scope) for scope in places)
    new = [fence for scope, fence in places.items() if fence_address(*scope) not in there]
    noted = slots_of(table, places)
    steps: list[list[Action]] = []
    for fence in new:
        slots = [KeySlot(fence.tenant, fence.subject, purpose) for purpose in Purpose]
        locks = [lock(slot, noted[slot]) for slot in slots]
        steps.append([actions.exists_not(fence_item(fence)), *locks])
    _write(table, steps)
    # Also of fences that were there: the process that took them over may have stopped here.
    doomed = raw_records(table, (key_id for slot in noted.values() for key_id in slot.keys))
    alive = [record for record in doomed.values() if record.state is not KeyState.DESTROYED]
    _write(table, [[actions.wipe(record.key_id)] for record in alive])
    return len(new)


def _take_records(table: Table, records: Sequence[KeyRecord]) -> int:
    scopes = {(record.tenant, record.subject) for record in records}
    found = table.get_many(fence_address(*scope) for scope in scopes)
    fenced = {scope for scope in scopes if fence_address(*scope) in found}
    addresses = {record.slot: slot_address(record.slot) for record in records}
    items = table.get_many(addresses.values())
    noted = {slot: slot_of(items.get(address)) for slot, address in addresses.items()}
    wanted = {record.key_id for record in records} | {each for slot in noted.values() for each in slot.keys}
    there = raw_records(table, wanted)
    kept = {
        record.key_id: merged(there.get(record.key_id), behind_fence(record, fenced)) for record in records
    }
    by_slot: dict[KeySlot, list[KeyRecord]] = {slot: [] for slot in noted}
    for record in {**there, **kept}.values():
        if record.slot in by_slot:
            by_slot[record.slot].append(record)
    changed = {key_id for key_id, record in kept.items() if record != there.get(key_id)}
    steps: list[list[Action]] = []
    for slot, filling in by_slot.items():
        state = replace(_standing(slot, filling), fenced=noted[slot].fenced)
        writes = [actions.put(key_item(record)) for record in filling if record.key_id in changed]
        if state != noted[slot]:
            writes.append(actions.put(slot_item(slot, state)))
        # More than a transaction holds: the slot comes last, and is written when the copy goes on.
        steps += [writes[start : start + _ROOM] for start in range(0, len(writes), _ROOM)]
    _write(table, steps)
    return len(changed)


def _standing(slot: KeySlot, filling: Sequence[KeyRecord]) -> Slot:
    """How a slot stands that these keys fill.

    Raises:
        KeyStoreError: they cannot all fill it.
    """
    active = [record.key_id for record in filling if record.state is KeyState.ACTIVE]
    if len(active) > 1 or len({record.version for record in filling}) < len(filling):
        raise KeyStoreError(f"keys contradict one another about the {slot.purpose} slot of {slot.tenant!r}")
    newest = max(filling, key=lambda record: record.version)
    return Slot(
        frozenset(record.key_id for record in filling),
        active[0] if active else None,
        frozenset(record.key_id for record in filling if record.state is KeyState.SUSPENDED),
        newest.key_id,
        newest.version,
    )


def _write(table: Table, steps: Sequence[Sequence[Action]]) -> None:
    for part in _parts(steps):
        _transact(table, [actions.check_unfinished(), *part])


def _parts(steps: Sequence[Sequence[Action]]) -> Iterator[list[Action]]:
    """Steps that must not be torn apart, as many to a transaction as it holds."""
    part: list[Action] = []
    for step in steps:
        if len(part) + len(step) > _ROOM:
            yield part
            part = []
        part += step
    if part:
        yield part


def _transact(table: Table, steps: Sequence[Action]) -> None:
    try:
        table.transact(steps)
    except Refused:
        pass
    else:
        return
    raise _not_unfinished()


def _not_unfinished() -> KeyStoreError:
    return KeyStoreError(
        "the key store is no unfinished copy, or another process copies to it; nothing was done"
    )
