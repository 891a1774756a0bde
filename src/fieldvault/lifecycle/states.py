"""Suspending keys and reinstating them: the reversible way to stop reading."""

from __future__ import annotations

from fieldvault.errors import KeyNotFound, KeyStoreError
from fieldvault.keys.records import KeyInfo, KeyState
from fieldvault.keys.ring import KeyRing

__all__ = ["reinstate", "suspend"]


def suspend(ring: KeyRing, key_id: bytes) -> KeyInfo:
    """Let a key neither seal nor open, from now on here and within the lease everywhere; reversible.

    Raises:
        KeyNotFound: there is no such key.
        ConfigurationError: it is destroyed, or suspended already.
        KeyStoreError: the key store failed, or another process changed the key at the same moment.
    """
    return _change(ring, key_id, [KeyState.SUSPENDED])


def reinstate(ring: KeyRing, key_id: bytes) -> KeyInfo:
    """Let a suspended key serve again: active if its slot has no active key, else retired.

    Raises:
        KeyNotFound: there is no such key.
        ConfigurationError: it is not suspended.
        KeyStoreError: the key store failed, or another process changed the key at the same moment.
    """
    return _change(ring, key_id, [KeyState.ACTIVE, KeyState.RETIRED])


def _change(ring: KeyRing, key_id: bytes, wanted: list[KeyState]) -> KeyInfo:
    record = ring.store.fetch([key_id]).records.get(key_id)
    if record is None:
        raise KeyNotFound(f"the key store has no key {key_id.hex()}")
    done = any(ring.store.transition(key_id, expect=record.state, to=state) for state in wanted)
    ring.lease.renew()
    if not done:
        raise KeyStoreError(f"another process changed the key {key_id.hex()} at the same moment; look again")
    return ring.store.fetch([key_id]).records[key_id].info()
