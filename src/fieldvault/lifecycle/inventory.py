"""What a key store holds, read whole and summed up: two stores with one digest hold the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby

from fieldvault.keys.protocols import Portable
from fieldvault.keys.records import Fence, KeyRecord, KeyState
from fieldvault.keystores.merging import behind_fence

__all__ = ["Inventory", "Scope", "TenantInventory", "scopes", "take_inventory"]

Scope = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class TenantInventory:
    """The keys and fences of a tenant and its subjects.

    ``digest`` is the SHA-256, in hex, of every member of every one of them, wrapped forms included.
    """

    digest: str
    keys: Mapping[KeyState, int]
    fences: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a key store holds, by tenant; tenants without keys and fences are left out."""

    tenants: Mapping[str, TenantInventory]

    @property
    def digest(self) -> str:
        """The SHA-256, in hex, of all tenants' names and digests."""
        return _digest([name, tenant.digest] for name, tenant in sorted(self.tenants.items()))

    @property
    def keys(self) -> Mapping[KeyState, int]:
        """How many keys there are in each state."""
        total: Counter[KeyState] = Counter()
        for tenant in self.tenants.values():
            total.update(tenant.keys)
        return {state: total[state] for state in KeyState}

    @property
    def fences(self) -> int:
        """How many scopes are fenced."""
        return sum(tenant.fences for tenant in self.tenants.values())

    def differing(self, other: Inventory) -> Sequence[str]:
        """The tenants of which the two do not hold the same, in order."""
        names = self.tenants.keys() | other.tenants.keys()
        return sorted(name for name in names if self.tenants.get(name) != other.tenants.get(name))


def take_inventory(store: Portable, *, wiped: bool = False, step: Callable[[], None]) -> Inventory:
    """Read a key store whole; ``step`` is called after each tenant.

    ``wiped``: as it is once shreds that were interrupted are complete. A key whose own scope is fenced counts
    as destroyed, whatever its record says.
    """
    fences: dict[str, list[Fence]] = {}
    for fence in store.fences():
        fences.setdefault(fence.tenant, []).append(fence)
    found: dict[str, TenantInventory] = {}
    for tenant in sorted({*store.tenants(), *fences}):
        own = fences.get(tenant, [])
        fenced = {(fence.tenant, fence.subject) for fence in own if wiped}
        states: Counter[KeyState] = Counter()
        lines = [_digest([_fence_members(fence)]) for fence in own]
        for record in (behind_fence(each, fenced) for _, part in scopes(store, tenant) for each in part):
            states[record.state] += 1
            lines.append(_digest([_key_members(record)]))
        if lines:
            found[tenant] = TenantInventory(_digest(sorted(lines)), states, len(own))
        step()
    return Inventory(found)


def scopes(store: Portable, tenant: str) -> Iterator[tuple[Scope, list[KeyRecord]]]:
    """A tenant's own keys, then those of each subject; never two active ones in a slot."""
    for subject, listed in groupby(store.all_keys(tenant), lambda record: record.subject):
        records = list(listed)
        active = [record.slot for record in records if record.state is KeyState.ACTIVE]
        if len(set(active)) < len(active):
            # The listing goes on while keys are made: it saw a key active, and the one that replaced it.
            records = list(store.keys(tenant, subject))
        yield (tenant, subject), records


def _digest(parts: Iterable[object]) -> str:
    return sha256(b"".join(json.dumps(part).encode() + b"\n" for part in parts)).hexdigest()


def _key_members(record: KeyRecord) -> list[object]:
    return [
        record.key_id.hex(),
        record.tenant,
        record.subject,
        record.purpose.value,
        record.version,
        record.state.value,
        record.created_at.isoformat(),
        record.uses,
        None if record.wrapped is None else record.wrapped.hex(),
        None if record.parent is None else record.parent.hex(),
    ]


def _fence_members(fence: Fence) -> list[object]:
    return [fence.tenant, fence.subject, fence.actor, fence.reason, fence.at.isoformat()]
