"""The actions that transactions are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fieldvault.keys.records import Change, KeyRecord, KeySlot, KeyState
from fieldvault.keystores.dynamodb.items import (
    HEAD,
    Address,
    Item,
    Slot,
    change_item,
    key_address,
    key_item,
    slot_item,
)

__all__ = [
    "Action",
    "absent",
    "check_copier",
    "check_unfenced",
    "count_tenants",
    "delete",
    "exists_not",
    "fill",
    "note",
    "retire",
    "rewrite_key",
    "rewrite_slot",
    "set_state",
    "update",
    "wipe",
]

Action = Mapping[str, Any]

_UNFENCED = "attribute_not_exists(fenced)"
_SERVED = "attribute_not_exists(unfinished) AND attribute_not_exists(moved)"


def exists_not(item: Item) -> Action:
    """Write an item where there is none."""
    return {"Put": {"Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}


def absent(address: Address) -> Action:
    """Go on only where there is no such item."""
    return {"ConditionCheck": {"Key": address.key, "ConditionExpression": "attribute_not_exists(pk)"}}


def check_unfenced(slot: Address) -> Action:
    """Go on only where a slot's scope is not fenced."""
    return {"ConditionCheck": {"Key": slot.key, "ConditionExpression": _UNFENCED}}


def update(
    address: Address, expression: str, condition: str, values: Item, names: Collection[str] = ()
) -> Action:
    """Change an item; ``names`` are attributes that the service's grammar has other uses for."""
    action: dict[str, Any] = {
        "Key": address.key,
        "UpdateExpression": expression,
        "ConditionExpression": condition,
    }
    if values:
        action["ExpressionAttributeValues"] = values
    if names:
        action["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
    return {"Update": action}


def fill(address: Address, slot: Slot, key_id: bytes, version: int) -> Action:
    """Have a key fill a slot that is as it was read, and not fenced."""
    values: dict[str, Any] = {
        ":key": {"B": key_id},
        ":keys": {"BS": [key_id]},
        ":version": {"N": str(version)},
    }
    conditions = [_UNFENCED]
    conditions += [_same("active", slot.active, values), _same("newest", slot.newest, values)]
    return update(
        address,
        "SET active = :key, newest = :key, version = :version ADD #keys :keys",
        " AND ".join(conditions),
        values,
        ["keys"],
    )


def _same(name: str, value: bytes | None, values: dict[str, Any]) -> str:
    if value is None:
        return f"attribute_not_exists({name})"
    placeholder = f":old_{name.removeprefix('#')}"
    values[placeholder] = {"B": value}
    return f"{name} = {placeholder}"


def rewrite_key(there: KeyRecord, record: KeyRecord) -> Action:
    """Write a key that is as it was read, another way."""
    values: dict[str, Any] = {":state": {"S": there.state.value}, ":uses": {"N": str(there.uses)}}
    conditions = ["#state = :state", "uses = :uses", _same("#wrapped", there.wrapped, values)]
    return {
        "Put": {
            "Item": key_item(record),
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {"#state": "state", "#wrapped": "wrapped"},
            "ExpressionAttributeValues": values,
        }
    }


def rewrite_slot(slot: KeySlot, there: Slot, state: Slot) -> Action:
    """Write a slot that is as it was read, another way."""
    values: dict[str, Any] = {}
    conditions = [
        f"attribute_{'' if there.fenced else 'not_'}exists(fenced)",
        _same("active", there.active, values),
        _same("newest", there.newest, values),
    ]
    put: dict[str, Any] = {"Item": slot_item(slot, state), "ConditionExpression": " AND ".join(conditions)}
    return {"Put": {**put, "ExpressionAttributeValues": values} if values else put}


def delete(address: Address) -> Action:
    """Delete an item."""
    return {"Delete": {"Key": address.key}}


def retire(key_id: bytes) -> Action:
    """Have an active key retire."""
    return set_state(key_id, KeyState.ACTIVE, KeyState.RETIRED)


def set_state(key_id: bytes, expect: KeyState, to: KeyState) -> Action:
    """Change a key's state; its material goes with its life."""
    gone = to is KeyState.DESTROYED
    expression = "SET #state = :to" + (" REMOVE #wrapped" if gone else "")
    values = {":to": {"S": to.value}, ":expect": {"S": expect.value}}
    names = ["state", "wrapped"] if gone else ["state"]
    return update(key_address(key_id), expression, "#state = :expect", values, names)


def wipe(key_id: bytes) -> Action:
    """Destroy a key, whatever its state is."""
    values = {":to": {"S": KeyState.DESTROYED.value}}
    return update(
        key_address(key_id),
        "SET #state = :to REMOVE #wrapped",
        "attribute_exists(pk)",
        values,
        ["state", "wrapped"],
    )


def check_copier(token: int) -> Action:
    """Go on only in an unfinished copy, as its copier."""
    return {
        "ConditionCheck": {
            "Key": HEAD.key,
            "ConditionExpression": "unfinished = :token",
            "ExpressionAttributeValues": {":token": {"N": str(token)}},
        }
    }


def count_tenants(more: int, *, token: int | None = None) -> Action:
    """Count tenants that are new, in a store that serves, or as its copier in one that is being copied."""
    values = {":more": {"N": str(more)}}
    if token is None:
        return update(HEAD, "ADD #tenants :more", _SERVED, values, ["tenants"])
    values[":token"] = {"N": str(token)}
    return update(HEAD, "ADD #tenants :more", "unfinished = :token", values, ["tenants"])


def note(
    generation: int, touched: Sequence[Change], *, tenants: int = 0, wiping: str | None = None
) -> list[Action]:
    """Raise the generation once for each scope touched, if it still is what was read, in a store that serves.

    ``tenants``: how many are new. ``wiping``: a scope whose keys are wiped in further steps.
    """
    values: dict[str, Any] = {
        ":seen": {"N": str(generation)},
        ":next": {"N": str(generation + len(touched))},
    }
    added = []
    if tenants:
        added.append("#tenants :tenants")
        values[":tenants"] = {"N": str(tenants)}
    if wiping is not None:
        added.append("wiping :wiping")
        values[":wiping"] = {"SS": [wiping]}
    expression = "SET #value = :next" + (f" ADD {', '.join(added)}" if added else "")
    condition = f"#value = :seen AND {_SERVED}"
    raised = update(HEAD, expression, condition, values, ["value", *(["tenants"] if tenants else [])])
    items = [change_item(number, change) for number, change in enumerate(touched, start=generation + 1)]
    return [raised, *map(exists_not, items)]
