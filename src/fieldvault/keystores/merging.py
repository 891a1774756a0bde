"""What becomes of a record when a key store takes it over from another (``Portable.take_over``)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState

__all__ = ["behind_fence", "check_slots", "destroyed", "locked_out", "merged", "one_each"]


def locked_out() -> KeyStoreError:
    """The error for a copier whose token is not, or no longer, that of the store."""
    return KeyStoreError(
        "the key store is no unfinished copy, or another copy to it was begun since; nothing was done"
    )


def one_each(records: Iterable[KeyRecord]) -> dict[bytes, KeyRecord]:
    """The records by key id.

    Raises:
        KeyStoreError: two of them are of one key, and not the same.
    """
    found: dict[bytes, KeyRecord] = {}
    for record in records:
        if found.setdefault(record.key_id, record) != record:
            raise KeyStoreError(f"two records contradict one another about the key {record.key_id.hex()}")
    return found


def check_slots(records: Iterable[KeyRecord]) -> None:
    """Refuse keys that cannot all fill their slots.

    Raises:
        KeyStoreError: two of a slot are active, or of one version.
    """
    active = set[KeySlot]()
    versions = set[tuple[KeySlot, int]]()
    for record in records:
        doubly = (record.slot, record.version) in versions
        versions.add((record.slot, record.version))
        if record.state is KeyState.ACTIVE:
            doubly = doubly or record.slot in active
            active.add(record.slot)
        if doubly:
            slot = record.slot
            raise KeyStoreError(
                f"keys contradict one another about the {slot.purpose} slot of {slot.tenant!r}"
            )


def merged(there: KeyRecord | None, coming: KeyRecord) -> KeyRecord:
    """The record that is kept: state and wrapped form as they come, the larger number of uses.

    What is destroyed stays destroyed.

    Raises:
        KeyStoreError: the two are not the same key.
    """
    if there is None:
        return coming
    fixed = (there.slot, there.version, there.created_at, there.parent)
    if fixed != (coming.slot, coming.version, coming.created_at, coming.parent):
        raise KeyStoreError(f"two records contradict one another about the key {coming.key_id.hex()}")
    kept = replace(coming, uses=max(there.uses, coming.uses))
    return destroyed(kept) if there.state is KeyState.DESTROYED else kept


def destroyed(record: KeyRecord) -> KeyRecord:
    """The record without its material."""
    return replace(record, state=KeyState.DESTROYED, wrapped=None)


def behind_fence(record: KeyRecord, fenced: Collection[tuple[str, str | None]]) -> KeyRecord:
    """The record, destroyed where its own scope is among those fenced.

    The fence of a tenant destroys the tenant's own keys; those of its subjects are unreadable without them,
    and are kept as they are.
    """
    return destroyed(record) if (record.tenant, record.subject) in fenced else record
