"""Suspending keys and reinstating them: the reversible way to stop reading."""

from __future__ import annotations

from collections.abc import Sequence

from fieldvault.errors import ConfigurationError, KeyNotFound, KeyStoreError
from fieldvault.keys.records import KeyInfo, KeyRecord, KeyState, Purpose
from fieldvault.keys.ring import KeyRing

__all__ = ["change", "reinstate", "suspend"]


def suspend(ring: KeyRing, key_id: bytes) -> KeyInfo:
    """Let a key neither seal nor open, from now on here and within the lease everywhere; reversible.

    Raises:
        KeyNotFound: there is no such key.
        ConfigurationError: it is destroyed, suspended already, or a former index key: without it unique
            constraints would let in what is there under it.
        KeyStoreError: the key store failed, or another process changed the key at the same moment.
    """
    record = _find(ring, key_id)
    if record.purpose is Purpose.INDEX and record.state is KeyState.RETIRED:
        raise ConfigurationError(
            f"the key {key_id.hex()} is a former index key of tenant {record.tenant!r}, whose rows may "
            "be under it still: rebuild them and drop it with the end of the rotation; to stop the tenant's "
            "searches and writes at once, suspend the active index key"
        )
    return _change(ring, record, [KeyState.SUSPENDED])


def change(ring: KeyRing, key_id: bytes, expect: KeyState, to: KeyState) -> KeyInfo:
    """Bring a key from one state to another, from now on here and within the lease everywhere.

    Raises:
        KeyNotFound: there is no such key.
        KeyStoreError: the key store failed, or another process changed the key at the same moment.
    """
    done = ring.store.transition(key_id, expect=expect, to=to)
    ring.lease.renew()
    if not done:
        raise KeyStoreError(f"another process changed the key {key_id.hex()} at the same moment; look again")
    return _find(ring, key_id).info()


def reinstate(ring: KeyRing, key_id: bytes) -> KeyInfo:
    """Let a suspended key serve again: as active if it is its slot's newest and no other is, else as retired.

    A key that was replaced before it was suspended never seals again.

    Raises:
        KeyNotFound: there is no such key.
        ConfigurationError: it is not suspended.
        KeyStoreError: the key store failed, or another process changed the key at the same moment.
    """
    record = _find(ring, key_id)
    others = ring.store.current([record.slot]).records.values()
    newest = all(other.version <= record.version for other in others if other.slot == record.slot)
    return _change(ring, record, [KeyState.ACTIVE, KeyState.RETIRED] if newest else [KeyState.RETIRED])


def _find(ring: KeyRing, key_id: bytes) -> KeyRecord:
    record = ring.store.fetch([key_id]).records.get(key_id)
    if record is None:
        raise KeyNotFound(f"the key store has no key {key_id.hex()}")
    return record


def _change(ring: KeyRing, record: KeyRecord, wanted: Sequence[KeyState]) -> KeyInfo:
    key_id = record.key_id
    done = any(ring.store.transition(key_id, expect=record.state, to=state) for state in wanted)
    ring.lease.renew()
    if not done:
        raise KeyStoreError(f"another process changed the key {key_id.hex()} at the same moment; look again")
    return _find(ring, key_id).info()
