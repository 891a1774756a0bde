"""What ``DynamoDBKeyStore`` writes.

Each step reads, decides, and writes in one transaction whose conditions say that what it decided on is still
so. Where they do not hold, nothing happened, and the step begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, NamedTuple

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import Change, KeyRecord, KeyState
from fieldvault.keystores.dynamodb import actions
from fieldvault.keystores.dynamodb.actions import Action
from fieldvault.keystores.dynamodb.failures import Refused
from fieldvault.keystores.dynamodb.heads import served
from fieldvault.keystores.dynamodb.items import (
    LEASE,
    Address,
    Slot,
    fence_address,
    key_address,
    key_item,
    slot_address,
    slot_of,
    tenant_address,
)
from fieldvault.keystores.dynamodb.reading import raw_records
from fieldvault.keystores.dynamodb.table import MAX_ACTIONS, Table, contended

__all__ = ["add_active", "raise_lease", "reserve", "rewrap", "transition"]


# -- adding -------------------------------------------------------------------------------------------------


class _Ground(NamedTuple):
    """What additions are decided on."""

    generation: int
    slots: Mapping[Address, Slot]
    fenced: AbstractSet[str]
    tenants: AbstractSet[str]


def add_active(table: Table, additions: Sequence[Addition]) -> AbstractSet[bytes]:
    """See ``KeyStore.add_active``; as many transactions as the additions need."""
    added: set[bytes] = set()
    parts = _transactions(additions)
    if len(parts) > 1:
        # Before the first of them, so that a fence that is there stops all.
        _refuse_fenced(_ground(table, additions), additions)
    for part in parts:
        added |= contended(partial(_add_part, table, part))
    return added


def _transactions(additions: Sequence[Addition]) -> list[list[Addition]]:
    """The additions in parts that each fit into a transaction, those of one tenant together."""
    parts: list[list[Addition]] = []
    room, tenants = 0, set[str]()
    for addition in sorted(additions, key=lambda each: each.record.tenant):
        tenant = addition.record.tenant
        needs = 2 if addition.replaces is None else 4
        # A tenant takes its own entry and a look at its fence.
        if room < needs + (0 if tenant in tenants else 2):
            parts.append([])
            room, tenants = MAX_ACTIONS - 1, set()
        room -= needs + (0 if tenant in tenants else 2)
        tenants.add(tenant)
        parts[-1].append(addition)
    return parts


def _add_part(table: Table, additions: Sequence[Addition]) -> AbstractSet[bytes]:
    ground = _ground(table, additions)
    _refuse_fenced(ground, additions)
    chosen = [each for each in additions if _fits(ground.slots[slot_address(each.record.slot)], each)]
    if not chosen:
        return set()
    steps: list[Action] = []
    for record, replaces in chosen:
        address = slot_address(record.slot)
        steps.append(actions.exists_not(key_item(record)))
        steps.append(actions.fill(address, ground.slots[address], record.key_id, record.version))
        if replaces is not None:
            steps.append(actions.retire(replaces))
    tenants = {each.record.tenant for each in chosen}
    new = sorted(tenants - ground.tenants)
    steps += [actions.absent(fence_address(tenant, None)) for tenant in sorted(tenants)]
    steps += [actions.exists_not(tenant_address(tenant).key) for tenant in new]
    touched = [
        Change(each.record.tenant, each.record.subject) for each in chosen if each.replaces is not None
    ]
    if touched:
        steps += actions.note(ground.generation, touched, tenants=len(new))
    elif new:
        steps.append(actions.count_tenants(len(new)))
    table.transact(steps)
    if not touched and not new:
        # None of these looked at the head, which all would wait for. If the store was moved away meanwhile,
        # its copy may lack these keys; if it was not by now, it has them.
        served(table)
    return {each.record.key_id for each in chosen}


def _fits(slot: Slot, addition: Addition) -> bool:
    return slot.active == addition.replaces and slot.version < addition.record.version


def _ground(table: Table, additions: Sequence[Addition]) -> _Ground:
    places = {each.record.slot: slot_address(each.record.slot) for each in additions}
    tenants = {each.record.tenant for each in additions}
    fences = {tenant: fence_address(tenant, None) for tenant in tenants}
    entries = {tenant: tenant_address(tenant) for tenant in tenants}
    items = table.get_many([*places.values(), *fences.values(), *entries.values()])
    # Last: had the store become a copy before any of that was read, this would tell.
    return _Ground(
        served(table).generation,
        {address: slot_of(items.get(address)) for address in places.values()},
        {tenant for tenant in tenants if fences[tenant] in items},
        {tenant for tenant in tenants if entries[tenant] in items},
    )


def _refuse_fenced(ground: _Ground, additions: Sequence[Addition]) -> None:
    for record, _ in additions:
        if record.tenant in ground.fenced:
            raise KeyShredded.of_scope(record.tenant, None)
        # A shred locks every slot of its scope.
        if ground.slots[slot_address(record.slot)].fenced:
            raise KeyShredded.of_scope(record.tenant, record.subject)


# -- changing -----------------------------------------------------------------------------------------------


def transition(table: Table, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
    """See ``KeyStore.transition``."""
    return contended(partial(_transition, table, key_id, expect, to))


def _transition(table: Table, key_id: bytes, expect: KeyState, to: KeyState) -> bool:
    generation = served(table).generation
    record = raw_records(table, [key_id]).get(key_id)
    if record is None or record.state is not expect:
        return False
    address = slot_address(record.slot)
    item = table.get(address)
    if item is not None and "fenced" in item:
        return False
    if to is KeyState.ACTIVE and slot_of(item).active is not None:
        return False
    change = Change(record.tenant, record.subject, whole_tenant=record.subject is None)
    steps = [actions.set_state(key_id, expect, to), *actions.note(generation, [change])]
    table.transact([*steps, _moved(address, record, to)])
    return True


def _moved(address: Address, record: KeyRecord, to: KeyState) -> Action:
    """The slot's side of a transition."""
    key = {"B": record.key_id}
    conditions, parts, values = ["attribute_not_exists(fenced)"], [], dict[str, Any]()
    if to is KeyState.ACTIVE:
        conditions.append("attribute_not_exists(active)")
        parts.append("SET active = :key")
        values[":key"] = key
    if record.state is KeyState.ACTIVE:
        conditions.append("active = :key")
        parts.append("REMOVE active")
        values[":key"] = key
    if KeyState.SUSPENDED in (record.state, to):
        parts.append(f"{'ADD' if to is KeyState.SUSPENDED else 'DELETE'} suspended :keys")
        values[":keys"] = {"BS": [record.key_id]}
    if not parts:
        return actions.check_unfenced(address)
    return actions.update(address, " ".join(parts), " AND ".join(conditions), values)


def reserve(table: Table, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
    """See ``KeyStore.reserve``: one update a key, none waiting for another."""

    def ask(key_id: bytes) -> int | None:
        updated = table.update(
            key_address(key_id),
            UpdateExpression="ADD uses :uses",
            ConditionExpression="#state = :active AND uses <= :most",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={
                ":uses": {"N": str(uses)},
                ":most": {"N": str(limit - uses)},
                ":active": {"S": KeyState.ACTIVE.value},
            },
            ReturnValues="UPDATED_NEW",
        )
        return None if updated is None else int(updated["uses"]["N"])

    served(table)
    wanted = list(dict.fromkeys(key_ids))
    totals = zip(wanted, table.map(ask, wanted), strict=True)
    granted = {key_id: total for key_id, total in totals if total is not None}
    # Once more: what was granted before the store was moved away is counted in its copy.
    served(table)
    return granted


def rewrap(table: Table, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
    """See ``KeyStore.rewrap``."""
    served(table)
    record = raw_records(table, [key_id]).get(key_id)
    if record is None or record.wrapped != expect:
        return False
    values = {":expect": {"B": expect}, ":wrapped": {"B": wrapped}}
    change = actions.update(
        key_address(key_id), "SET #wrapped = :wrapped", "#wrapped = :expect", values, ["wrapped"]
    )
    try:
        table.transact([change, actions.check_unfenced(slot_address(record.slot))])
    except Refused:
        done = False
    else:
        done = True
    served(table)
    return done


def raise_lease(table: Table, milliseconds: int) -> int:
    """Note a lease, if it is longer than any before; the longest."""
    return contended(partial(_raise_lease, table, milliseconds))


def _raise_lease(table: Table, milliseconds: int) -> int:
    item = table.get(LEASE)
    longest = int(item["value"]["N"]) if item is not None else 0
    if milliseconds <= longest:
        return longest
    values = {":value": {"N": str(milliseconds)}}
    shorter = "attribute_not_exists(pk) OR #value < :value"
    table.transact([actions.update(LEASE, "SET #value = :value", shorter, values, ["value"])])
    return milliseconds
