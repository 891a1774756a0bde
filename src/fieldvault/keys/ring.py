"""The key ring: the key to seal a scope's values with, the key to open a ciphertext with."""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Iterable
from datetime import UTC, datetime

from fieldvault.envelope import HEADER_SIZE, KEY_ID_START, Envelope
from fieldvault.errors import DecryptionError, KeyNotFound, KeyStoreError
from fieldvault.keys.cache import CachedKey, KeyCache, ValueKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.lease import Lease
from fieldvault.keys.loading import ROUNDS, KeyLoader, active_of
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, Addition, KeyStore
from fieldvault.keys.records import KeyRecord, KeySlot, Purpose
from fieldvault.keys.retrying import RetryingKMS
from fieldvault.suites import Suite, suite_numbered

__all__ = ["KeyRing"]


class KeyRing:
    """Data keys, out of a cache that is bounded, aged and leased, or from the key store and the KMS.

    ``cache.sealing`` and ``cache.opening`` are for the hot paths: what is there and fresh needs no call of
    the ring at all. Everything else comes here, where nothing is hot.
    """

    def __init__(
        self, kms: KMS, store: KeyStore, *, policy: CachePolicy, rotation: RotationPolicy, clock: Clock
    ) -> None:
        self.store = store
        self.rotation = rotation
        self.clock = clock
        self.cache = KeyCache(policy.max_keys)
        self.lease = Lease(store, self.cache, seconds=policy.lease, grace=policy.grace, clock=clock)
        self.loader = KeyLoader(
            RetryingKMS(kms), store, self.cache, self.lease, policy=policy, rotation=rotation, clock=clock
        )
        _in_forked_children(self)

    def for_sealing(self, slot: KeySlot, suite: Suite, kind: int) -> ValueKey:
        """The slot's active key, fresh, with one message drawn from its reserve; made first if there is none.

        Raises:
            KeyShredded, KeySuspended: the scope has no key to seal with.
            KMSError, KeyStoreError: a backend failed, and no grace covers it.
        """
        made = self.cache.sealing[suite.number, kind].get(
            slot.tenant if slot.subject is None else (slot.tenant, slot.subject)
        )
        for _ in range(ROUNDS):
            if made is not None and self._freshen(made) and self._draw(made.key):
                return made
            made = self.cache.value_key(self._active(slot), suite, kind)
        raise KeyStoreError(f"the active key of tenant {slot.tenant!r} changes faster than it can be read")

    def for_opening(self, blob: bytes) -> ValueKey:
        """The key that a ciphertext names, fresh.

        Raises:
            MalformedCiphertext: it is no ciphertext.
            KeyNotFound, KeyShredded, KeySuspended: its key cannot open it.
            DecryptionError: it names a key that never seals values.
            KMSError, KeyStoreError: a backend failed, and no grace covers it.
        """
        envelope = Envelope.parse(blob)
        made = self.cache.opening.get(blob[:HEADER_SIZE])
        for _ in range(ROUNDS):
            if made is not None and self._freshen(made):
                return made
            key = self.loader.by_id([envelope.key_id])[envelope.key_id]
            if isinstance(key, Exception):
                raise key
            if key.record.purpose is not Purpose.DATA:
                raise DecryptionError
            made = self.cache.value_key(key, suite_numbered(envelope.suite), envelope.kind)
        raise KeyStoreError(f"the state of key {envelope.key_id.hex()} changes faster than it can be read")

    def sealing_may_wait(self, slot: KeySlot) -> bool:
        """Whether sealing for a slot now might have to ask a backend first.

        An event loop then does better in a thread.
        """
        key = self.cache.active(slot)
        return key is None or not self._serves(key) or operator.length_hint(key.uses) < 2

    def opening_may_wait(self, blob: bytes) -> bool:
        """Whether opening a ciphertext now might have to ask a backend first.

        An event loop then does better in a thread.
        """
        key = self.cache.get(blob[KEY_ID_START:HEADER_SIZE])
        return key is None or not self._serves(key)

    def _serves(self, key: CachedKey) -> bool:
        now = self.clock()
        return now < self.lease.until and now < key.expires

    def prefetch(self, *, slots: Iterable[KeySlot] = (), blobs: Iterable[bytes | None] = ()) -> None:
        """Have the active keys of slots, and the keys that ciphertexts name, in the cache.

        What is missing comes in one batch. A key that cannot be had is no error here: its use is.
        """
        now = self.clock()
        missing: dict[bytes, None] = {}
        for header in {blob[:HEADER_SIZE] for blob in blobs if blob is not None}:
            made = self.cache.opening.get(header)
            if made is None or now >= made.fresh_until:
                missing[header[KEY_ID_START:]] = None
        if missing:
            self.loader.by_id(missing)
        wanted = list(slots)
        if wanted:
            self.loader.active(wanted)

    def rotate(self, slot: KeySlot) -> KeyRecord:
        """A new active key for the slot; the former one is retired and still opens what it sealed.

        Raises:
            KeyNotFound: the slot never had a key.
            KeyShredded: the scope was shredded.
        """
        for _ in range(ROUNDS):
            snapshot = self.store.current([slot])
            if not any(record.slot == slot for record in snapshot.records.values()):
                raise KeyNotFound(f"tenant {slot.tenant!r} has no {slot.purpose} key to rotate")
            active = active_of(snapshot, slot)
            record, _ = self.loader.make(slot, snapshot)
            if self.store.add_active([Addition(record, None if active is None else active.key_id)]):
                self.lease.renew()
                return record
        raise KeyStoreError(
            f"the active key of tenant {slot.tenant!r} changes faster than it can be replaced"
        )

    def after_fork(self) -> None:
        """In a child.

        Locks and flights of its own, no claim on what the parent reserved. The lease goes on: the clock
        checks it.
        """
        self.cache.after_fork()
        self.lease.after_fork()
        self.loader.after_fork()

    def _active(self, slot: KeySlot) -> CachedKey:
        outcome = self.loader.active([slot])[slot]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _freshen(self, made: ValueKey) -> bool:
        """Let the hot paths use ``made`` up to the end of the lease or of its age.

        False if it has to be loaded again.
        """
        until = self.lease.ensure()
        with self.cache.lock:
            key = made.key
            if key.evicted or self.clock() >= key.expires:
                return False
            key.touched = True
            made.fresh_until = min(until, key.expires)
            return True

    def _draw(self, key: CachedKey) -> bool:
        """Take one message of the key's reserve, reserving a block if need be.

        False if it was rotated and another has to be found.
        """
        record = key.record
        max_age = self.rotation.max_age
        if max_age is None or datetime.now(UTC) - record.created_at < max_age:
            if next(key.uses, False):
                return True
            granted = self.store.reserve([record.key_id], self.rotation.block, limit=self.rotation.max_uses)
            if record.key_id in granted:
                key.grant(self.rotation.block - 1)
                return True
        self._replace(record)
        return False

    def _replace(self, record: KeyRecord) -> None:
        """Rotate away from ``record``, unless another process has done so already."""
        snapshot = self.store.current([record.slot])
        active = active_of(snapshot, record.slot)
        if active is not None and active.key_id == record.key_id:
            fresh, _ = self.loader.make(record.slot, snapshot)
            self.store.add_active([Addition(fresh, record.key_id)])
        self.lease.renew()


def _in_forked_children(ring: KeyRing) -> None:
    """Have ``ring.after_fork`` run in every forked child, for as long as the ring lives."""
    if hasattr(os, "register_at_fork"):
        reference = weakref.ref(ring)

        def child() -> None:
            alive = reference()
            if alive is not None:
                alive.after_fork()

        os.register_at_fork(after_in_child=child)
