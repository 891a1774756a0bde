"""The cache of unwrapped keys: bounded, aged, and readable without a lock."""

from __future__ import annotations

import operator
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import repeat
from math import inf

from fieldvault.keys.cached import NO_USES, CachedKey, ValueKey
from fieldvault.keys.permission import Permission
from fieldvault.keys.records import Change, KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.suites import Suite

__all__ = ["KeyCache", "Owner", "touched_by"]

_MOST_KINDS = 16
"""Suites and types that a key keeps something for: forged headers could ask for every combination."""

Owner = str | tuple[str, str]
"""Whose values a key seals.

The tenant, or tenant and subject. Bare text for a tenant, because its hash is already there.
"""


class KeyCache:
    """Unwrapped keys, at most ``max_keys`` of them.

    ``opening`` (by ciphertext header) and ``sealing`` (by suite number and type, then by owner) are plain
    dictionaries that the hot paths read without a lock; whoever finds nothing fresh there takes the slow
    path. The lock orders changes, and is never held over input or output. When it is full the oldest key goes
    that was not used since it last came up.
    """

    __slots__ = ("_active", "_destroyed", "_keys", "_lock", "_max_keys", "_unused", "opening", "sealing")

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._keys: dict[bytes, CachedKey] = {}
        self._active: dict[KeySlot, CachedKey] = {}
        # What evicted keys had reserved and not used, for when they come back: a block is lost to its key
        # with the process, and not with each eviction.
        self._unused: dict[bytes, repeat[bool]] = {}
        self._destroyed: dict[bytes, str] = {}
        self.opening: dict[bytes, ValueKey] = {}
        self.sealing: defaultdict[tuple[int, int], dict[Owner, ValueKey]] = defaultdict(dict)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def lock(self) -> threading.RLock:
        """What orders changes; for checks that must hold at the moment of the change."""
        return self._lock

    def held(self) -> list[CachedKey]:
        """All keys, however stale."""
        return list(self._keys.values())

    def get(self, key_id: bytes) -> CachedKey | None:
        """The key, however stale."""
        return self._keys.get(key_id)

    def active(self, slot: KeySlot) -> CachedKey | None:
        """The slot's active key as far as this process knows, however stale."""
        return self._active.get(slot)

    def destroyed(self, key_id: bytes) -> str | None:
        """Why a key opens nothing, if this process has learned that it was destroyed."""
        return self._destroyed.get(key_id)

    def note_destroyed(self, key_id: bytes, why: str) -> None:
        """Remember that a key was destroyed: that is final, so nobody has to ask again.

        The last ``max_keys`` ones are remembered.
        """
        with self._lock:
            self._destroyed[key_id] = why
            if len(self._destroyed) > self._max_keys:
                del self._destroyed[next(iter(self._destroyed))]

    def discard(self, key_id: bytes) -> None:
        """Revoke one key, and those that it wraps."""
        with self._lock:
            for key in list(self._keys.values()):
                if key_id in (key.record.key_id, key.record.parent):
                    self._revoke(key)

    def grant(self, key: CachedKey, uses: int) -> None:
        """Let a key seal ``uses`` messages, which were reserved for it."""
        with self._lock:
            key.grant(uses)
            if key.evicted:
                self._remember_unused(key)

    def put(self, key: CachedKey) -> None:
        """Take a key in, in place of what was there under its id."""
        with self._lock:
            old = self._keys.get(key.record.key_id)
            if old is not None:
                self._evict(old)
            key.uses = self._unused.pop(key.record.key_id, NO_USES)
            self._keys[key.record.key_id] = key
            if key.record.state is KeyState.ACTIVE:
                self._active[key.record.slot] = key
            while len(self._keys) > self._max_keys:
                oldest = next(iter(self._keys.values()))
                if oldest is key or oldest.touched:
                    oldest.touched = oldest is key
                    self._keys[oldest.record.key_id] = self._keys.pop(oldest.record.key_id)
                else:
                    self._evict(oldest)

    def value_key(self, key: CachedKey, suite: Suite, kind: int) -> ValueKey:
        """The key for a suite and type of value, made on first use and then offered to the hot paths."""
        place = (suite.number, kind)
        with self._lock:
            made = key.value_keys.get(place)
            if made is None:
                made = ValueKey(key, suite, kind)
                if len(key.value_keys) >= _MOST_KINDS:
                    return made
                key.value_keys[place] = made
            if not key.evicted:
                record = key.record
                self.opening[made.header] = made
                if record.state is KeyState.ACTIVE and record.purpose is Purpose.DATA:
                    self.sealing[place][_owner(record)] = made
            return made

    def drop(self, changes: Iterable[Change] | None) -> None:
        """Revoke the keys of the scopes that were touched; all keys for ``None``."""
        self.drop_where(touched_by(changes))

    def drop_where(self, touched: Callable[[KeyRecord], bool]) -> None:
        """Revoke the keys whose records were touched."""
        with self._lock:
            for key in [key for key in self._keys.values() if touched(key.record)]:
                self._revoke(key)

    def drop_dependent(self, permission: Permission) -> None:
        """Revoke the keys that depend on this permission."""
        with self._lock:
            for key in [key for key in self._keys.values() if key.permission is permission]:
                self._revoke(key)

    def after_fork(self) -> None:
        """In a child: a lock of its own, and no claim on the messages that the parent reserved."""
        torn = not self._lock.acquire(blocking=False)
        self._lock = threading.RLock()
        if torn:
            # The thread that was in the midst of a change does not exist here and never ends it.
            self._keys.clear()
            self._active.clear()
            self.opening.clear()
            for by_owner in self.sealing.values():
                by_owner.clear()
        self._unused.clear()
        for key in self._keys.values():
            key.grant(0)

    def _remember_unused(self, key: CachedKey) -> None:
        if operator.length_hint(key.uses):
            self._unused[key.record.key_id] = key.uses
            if len(self._unused) > self._max_keys:
                del self._unused[next(iter(self._unused))]

    def _revoke(self, key: CachedKey) -> None:
        key.expires = -inf
        self._evict(key)

    def _evict(self, key: CachedKey) -> None:
        record = key.record
        key.evicted = True
        del self._keys[record.key_id]
        self._remember_unused(key)
        if self._active.get(record.slot) is key:
            del self._active[record.slot]
        for place, made in key.value_keys.items():
            made.fresh_until = -inf
            self.opening.pop(made.header, None)
            if self.sealing[place].get(_owner(record)) is made:
                del self.sealing[place][_owner(record)]


def _owner(record: KeyRecord) -> Owner:
    return record.tenant if record.subject is None else (record.tenant, record.subject)


def touched_by(changes: Iterable[Change] | None) -> Callable[[KeyRecord], bool]:
    """Whether a record is of a scope that was touched; every record is for ``None``, nobody knows what."""
    if changes is None:
        return lambda _: True
    noted = list(changes)
    tenants = {change.tenant for change in noted if change.whole_tenant}
    scopes = {(change.tenant, change.subject) for change in noted}
    return lambda record: record.tenant in tenants or (record.tenant, record.subject) in scopes
