"""What ``DynamoDBKeyStore`` reads.

A read of several items is not one moment of the store. The generation is read first, so what comes after is
never older than the generation that it is given out with; and what a slot says is read again where its keys
say otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import Change, Fence, KeyRecord, KeySlot, KeyState, Purpose, Snapshot
from fieldvault.keystores.dynamodb.heads import Head, head, served
from fieldvault.keystores.dynamodb.items import (
    Address,
    Item,
    Slot,
    change_of,
    fence_address,
    fence_of,
    key_address,
    record_of,
    scope_name,
    slot_address,
    slot_of,
)
from fieldvault.keystores.dynamodb.table import Table

__all__ = [
    "all_keys",
    "changes",
    "current",
    "fence_over",
    "fetch",
    "keys_of_scope",
    "raw_records",
    "slots_of",
    "tenants",
]

_ATTEMPTS = 20


def changes(table: Table, since: int) -> Sequence[Change] | None:
    """What was touched after a generation; ``None`` where the table no longer has all of it."""
    generation, since = head(table).generation, max(since, 0)
    items = [item for page in table.query("changes", after=f"{since:020}") for item in page]
    numbers = [int(Address.of(item).sk) for item in items]
    if numbers != list(range(since + 1, since + 1 + len(items))) or len(items) < generation - since:
        return None
    return [change_of(item) for item in items]


def fetch(table: Table, key_ids: Iterable[bytes]) -> Snapshot:
    """These keys and their parents."""
    seen = served(table)
    return _with_parents(table, seen, raw_records(table, key_ids))


def current(table: Table, slots: Iterable[KeySlot]) -> Snapshot:
    """How these slots stand."""
    seen = served(table)
    items = table.get_many(slot_address(slot) for slot in dict.fromkeys(slots))
    return _with_parents(table, seen, _filling(table, seen, items, telling=True))


def _filling(
    table: Table, seen: Head, items: Mapping[Address, Item], *, telling: bool = False
) -> dict[bytes, KeyRecord]:
    """The keys of slots that were read, all of them or those that say how a slot stands.

    In an unfinished copy they may be as nobody would serve them: a large slot is written in several steps.

    Raises:
        KeyStoreError: a slot and its keys contradict one another, however often they are read.
    """
    found: dict[bytes, KeyRecord] = {}
    for _ in range(_ATTEMPTS):
        noted = {address: slot_of(item) for address, item in items.items()}
        wanted = {address: slot.telling if telling else slot.keys for address, slot in noted.items()}
        records = raw_records(table, (key_id for key_ids in wanted.values() for key_id in key_ids))
        torn = []
        for address, key_ids in wanted.items():
            own = {key_id: records[key_id] for key_id in key_ids if key_id in records}
            whole = len(own) == len(key_ids) and _agree(noted[address], own.values())
            if seen.token is None and not whole:
                # Somebody changed the slot in between.
                torn.append(address)
            else:
                found.update(own)
        if not torn:
            return found
        items = table.get_many(torn)
    raise KeyStoreError("the key store failed: a slot's keys never were as the slot says")


def _agree(slot: Slot, records: Collection[KeyRecord]) -> bool:
    """Whether keys are in the states that their slot speaks of."""
    if slot.fenced:
        return True
    active = {record.key_id for record in records if record.state is KeyState.ACTIVE}
    suspended = {record.key_id for record in records if record.state is KeyState.SUSPENDED}
    return active == ({slot.active} - {None}) and suspended == slot.suspended


def fence_over(table: Table, tenant: str, subject: str | None) -> Fence | None:
    """The fence of a scope, or else of its tenant."""
    own, whole = fence_address(tenant, subject), fence_address(tenant, None)
    found = table.get_many((own, whole))
    item = found.get(own) or found.get(whole)
    return None if item is None else fence_of(item)


def slots_of(table: Table, scopes: Iterable[tuple[str, str | None]]) -> Mapping[KeySlot, Slot]:
    """The slots of scopes, those without keys too."""
    slots = [KeySlot(*scope, purpose) for scope in scopes for purpose in Purpose]
    addresses = {slot: slot_address(slot) for slot in slots}
    items = table.get_many(addresses.values())
    return {slot: slot_of(items.get(address)) for slot, address in addresses.items()}


def keys_of_scope(table: Table, tenant: str, subject: str | None) -> list[KeyRecord]:
    """A scope's keys, by purpose and version."""
    seen = head(table)
    items = table.get_many(slot_address(KeySlot(tenant, subject, purpose)) for purpose in Purpose)
    return _sorted(seen, _filling(table, seen, items).values())


def all_keys(table: Table, tenant: str) -> Iterator[KeyRecord]:
    """A tenant's keys and its subjects', by subject, purpose and version, a page of slots at a time."""
    pk = slot_address(KeySlot(tenant)).pk
    for page in table.query(pk):
        seen = head(table)
        items = {Address.of(item): item for item in page}
        yield from _sorted(seen, _filling(table, seen, items).values())


def tenants(table: Table) -> Iterator[str]:
    """Every tenant."""
    for page in table.query("tenants"):
        for item in page:
            yield Address.of(item).sk


def raw_records(table: Table, key_ids: Iterable[bytes]) -> dict[bytes, KeyRecord]:
    """The records of these keys as the table has them, material of scopes that are being wiped included."""
    items = table.get_many(key_address(key_id) for key_id in key_ids)
    return {record.key_id: record for record in map(record_of, items.values())}


def _with_parents(table: Table, seen: Head, records: Mapping[bytes, KeyRecord]) -> Snapshot:
    parents = {record.parent for record in records.values() if record.parent is not None}
    found = {**records, **raw_records(table, parents - records.keys())}
    return Snapshot(seen.generation, {key_id: _shown(seen, record) for key_id, record in found.items()})


def _sorted(seen: Head, records: Iterable[KeyRecord]) -> list[KeyRecord]:
    shown = [_shown(seen, record) for record in records]
    return sorted(shown, key=lambda record: (record.subject or "", record.purpose, record.version))


def _shown(seen: Head, record: KeyRecord) -> KeyRecord:
    """A record as everyone may see it: behind a fence there is no material, wiped already or not."""
    if scope_name(record.tenant, record.subject) not in seen.wiping:
        return record
    return replace(record, state=KeyState.DESTROYED, wrapped=None)
