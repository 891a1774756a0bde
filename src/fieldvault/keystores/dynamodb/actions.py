"""The actions that transactions are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fieldvault.keys.records import Change, KeyState
from fieldvault.keystores.dynamodb.items import (
    HEAD,
    Address,
    Item,
    Slot,
    change_item,
    key_address,
)

__all__ = [
    "Action",
    "absent",
    "check_unfenced",
    "check_unfinished",
    "count_tenants",
    "exists_not",
    "fill",
    "note",
    "put",
    "retire",
    "set_state",
    "update",
    "wipe",
]

Action = Mapping[str, Any]

_UNFENCED = "attribute_not_exists(fenced)"


def put(item: Item) -> Action:
    """Write an item, whatever was there."""
    return {"Put": {"Item": item}}


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
    conditions.append(_same("active", slot.active, values))
    if slot.newest is None:
        conditions.append("attribute_not_exists(newest)")
    else:
        conditions.append(_same("newest", slot.newest, values))
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
    values[f":old_{name}"] = {"B": value}
    return f"{name} = :old_{name}"


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


def check_unfinished() -> Action:
    """Go on only in an unfinished copy."""
    return {"ConditionCheck": {"Key": HEAD.key, "ConditionExpression": "attribute_exists(unfinished)"}}


def count_tenants(more: int, *, finished: bool = True) -> Action:
    """Count tenants that are new, in a store that serves, or in one that is being copied."""
    condition = f"attribute_{'not_' if finished else ''}exists(unfinished)"
    return update(HEAD, "ADD #tenants :more", condition, {":more": {"N": str(more)}}, ["tenants"])


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
    condition = "#value = :seen AND attribute_not_exists(unfinished)"
    raised = update(HEAD, expression, condition, values, ["value", *(["tenants"] if tenants else [])])
    items = [change_item(number, change) for number, change in enumerate(touched, start=generation + 1)]
    return [raised, *map(exists_not, items)]
