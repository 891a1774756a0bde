"""Being a copy of another key store, and being copied (``Portable``): the fences first, then slot by slot."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fieldvault.errors import UnfinishedCopy
from fieldvault.keys.records import Fence, KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.keystores.dynamodb import actions
from fieldvault.keystores.dynamodb.actions import Action
from fieldvault.keystores.dynamodb.failures import Refused
from fieldvault.keystores.dynamodb.heads import head
from fieldvault.keystores.dynamodb.items import (
    HEAD,
    Address,
    Item,
    Slot,
    fence_address,
    fence_item,
    fence_of,
    key_address,
    key_item,
    slot_address,
    slot_of,
    tenant_address,
)
from fieldvault.keystores.dynamodb.reading import raw_records, slots_of, tenants
from fieldvault.keystores.dynamodb.shredding import lock
from fieldvault.keystores.dynamodb.table import MAX_ACTIONS, Table
from fieldvault.keystores.dynamodb.writing import raise_lease
from fieldvault.keystores.merging import behind_fence, check_slots, locked_out, merged, one_each

__all__ = ["begin", "fences", "finish", "give_up", "move_away", "move_back", "take_over"]

_TOKEN_BITS = 60

_ROOM = MAX_ACTIONS - 1
"""Beside the head, which every transaction of a copy looks at."""


def fences(table: Table) -> Iterator[Fence]:
    """Every fence, tenant by tenant."""
    for tenant in tenants(table):
        for page in table.query(fence_address(tenant, None).pk):
            yield from map(fence_of, page)


def begin(table: Table) -> int | None:
    """See ``Portable.begin_copy``."""
    head(table)
    fresh = "#value = :zero AND attribute_not_exists(#tenants) AND attribute_not_exists(moved)"
    return _draw(
        table, f"attribute_exists(unfinished) OR ({fresh})", {":zero": {"N": "0"}}, ["value", "tenants"]
    )


def _draw(table: Table, condition: str, values: Item, names: Collection[str] = ()) -> int | None:
    """Lock out who copied by now, if the head is so."""
    token = secrets.randbits(_TOKEN_BITS)
    values = {**values, ":token": {"N": str(token)}}
    try:
        table.transact([actions.update(HEAD, "SET unfinished = :token", condition, values, names)])
    except Refused:
        return None
    return token


def finish(table: Table, *, token: int, generation: int, milliseconds: int) -> None:
    """See ``Portable.finish_copy``."""
    _require_copier(table, token)
    raise_lease(table, milliseconds)
    values = {":value": {"N": str(max(generation, 1))}, ":token": {"N": str(token)}}
    step = actions.update(
        HEAD, "SET #value = :value REMOVE unfinished", "unfinished = :token", values, ["value"]
    )
    _transact(table, [step])


def give_up(table: Table) -> bool:
    """See ``Portable.give_up_copy``; what leads to an item goes after it."""
    head(table)
    token = _draw(table, "attribute_exists(unfinished)", {})
    if token is None:
        return False
    names = list(tenants(table))
    for name in names:
        for page in table.query(slot_address(KeySlot(name)).pk):
            keys = [key_address(key_id) for item in page for key_id in slot_of(item).keys]
            _delete(table, token, keys)
            _delete(table, token, map(Address.of, page))
        for page in table.query(fence_address(name, None).pk):
            _delete(table, token, map(Address.of, page))
    _delete(table, token, map(tenant_address, names))
    values = {":token": {"N": str(token)}}
    _transact(
        table,
        [actions.update(HEAD, "REMOVE unfinished, #tenants", "unfinished = :token", values, ["tenants"])],
    )
    return True


def _delete(table: Table, token: int, addresses: Iterable[Address]) -> None:
    _write(table, token, [[actions.delete(each)] for each in addresses])


def move_away(table: Table, *, token: int) -> int:
    """See ``Portable.move_away``."""
    head(table)
    there = table.update(
        HEAD,
        UpdateExpression="SET moved = :token",
        ConditionExpression="attribute_exists(pk) AND attribute_not_exists(unfinished)",
        ExpressionAttributeValues={":token": {"N": str(token)}},
        ReturnValues="ALL_NEW",
    )
    if there is None:
        raise UnfinishedCopy
    return int(there["value"]["N"])


def move_back(table: Table, *, token: int | None) -> bool:
    """See ``Portable.move_back``."""
    head(table)
    condition, values = "attribute_exists(moved)", {}
    if token is not None:
        condition, values = "moved = :token", {":token": {"N": str(token)}}
    try:
        table.transact([actions.update(HEAD, "REMOVE moved", condition, values)])
    except Refused:
        return False
    return True


def take_over(table: Table, records: Sequence[KeyRecord], given: Sequence[Fence], *, token: int) -> int:
    """See ``Portable.take_over``."""
    _require_copier(table, token)
    names = {each.tenant for each in records} | {each.tenant for each in given}
    _enter(table, token, names)
    return _take_fences(table, token, given) + _take_records(table, token, list(one_each(records).values()))


def _require_copier(table: Table, token: int) -> None:
    if head(table).token != token:
        raise locked_out()


def _enter(table: Table, token: int, names: Iterable[str]) -> None:
    """Note the tenants that are not noted yet."""
    addresses = [tenant_address(name) for name in sorted(names)]
    there = table.get_many(addresses)
    missing = [actions.exists_not(each.key) for each in addresses if each not in there]
    for part in _parts([[each] for each in missing]):
        _transact(table, [actions.count_tenants(len(part), token=token), *part])


def _take_fences(table: Table, token: int, given: Sequence[Fence]) -> int:
    places = {(each.tenant, each.subject): each for each in reversed(given)}
    there = table.get_many(fence_address(*scope) for scope in places)
    new = {scope for scope in places if fence_address(*scope) not in there}
    noted = slots_of(table, places)
    steps: list[list[Action]] = []
    for scope, fence in places.items():
        slots = [KeySlot(*scope, purpose) for purpose in Purpose]
        step = [actions.exists_not(fence_item(fence))] if scope in new else []
        steps.append(step + [lock(slot, noted[slot]) for slot in slots if not noted[slot].fenced])
    _write(table, token, steps)
    # Also of fences that were there: the process that took them over may have stopped here.
    doomed = raw_records(table, (key_id for slot in noted.values() for key_id in slot.keys))
    alive = [record for record in doomed.values() if record.state is not KeyState.DESTROYED]
    _write(table, token, [[actions.wipe(record.key_id)] for record in alive])
    return len(new)


def _take_records(table: Table, token: int, records: Sequence[KeyRecord]) -> int:
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
            by_slot[record.slot].append(behind_fence(record, fenced))
    check_slots(record for filling in by_slot.values() for record in filling)
    changed = {key_id for key_id, record in kept.items() if record != there.get(key_id)}
    steps: list[list[Action]] = []
    for slot, filling in by_slot.items():
        state = replace(
            _standing(filling), fenced=noted[slot].fenced or (slot.tenant, slot.subject) in fenced
        )
        writes = [_key(there, record) for record in filling if record.key_id in changed]
        if state != noted[slot]:
            # First: where there are more keys than a transaction holds, it leads to those that are there.
            writes.insert(0, actions.rewrite_slot(slot, noted[slot], state))
        steps += [writes[start : start + _ROOM] for start in range(0, len(writes), _ROOM)]
    _write(table, token, steps)
    return len(changed)


def _key(there: Mapping[bytes, KeyRecord], record: KeyRecord) -> Action:
    known = there.get(record.key_id)
    return actions.exists_not(key_item(record)) if known is None else actions.rewrite_key(known, record)


def _standing(filling: Sequence[KeyRecord]) -> Slot:
    """How a slot stands that these keys fill."""
    active = [record.key_id for record in filling if record.state is KeyState.ACTIVE]
    newest = max(filling, key=lambda record: record.version)
    return Slot(
        frozenset(record.key_id for record in filling),
        active[0] if active else None,
        frozenset(record.key_id for record in filling if record.state is KeyState.SUSPENDED),
        newest.key_id,
        newest.version,
    )


def _write(table: Table, token: int, steps: Sequence[Sequence[Action]]) -> None:
    for part in _parts(steps):
        _transact(table, [actions.check_copier(token), *part])


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
    raise locked_out()
