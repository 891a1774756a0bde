"""What becomes of a record when a key store takes it over from another (``Portable.take_over``)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fieldvault.errors import KeyStoreError
from fieldvault.keys.records import KeyRecord, KeyState

__all__ = ["behind_fence", "destroyed", "merged"]


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
