"""The key ring: the key to seal a scope's values with, the key to open a ciphertext with."""

from __future__ import annotations

from collections.abc import Iterable

from fieldvault.context import check_name
from fieldvault.envelope import HEADER_SIZE, KEY_ID_START, Envelope
from fieldvault.errors import DecryptionError, KeyStoreError
from fieldvault.forks import in_forked_children
from fieldvault.keys.budget import Budget
from fieldvault.keys.cache import CachedKey, ValueKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.indexing import IndexCache, IndexKeyLoader, IndexKeys
from fieldvault.keys.lease import Lease
from fieldvault.keys.loading import ROUNDS, KeyLoader
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.records import KeyRecord, KeySlot, Purpose
from fieldvault.keys.retrying import RetryingKMS
from fieldvault.suites import Suite, suite_numbered

__all__ = ["KeyRing"]

_BYTES = (bytes, bytearray, memoryview)


class KeyRing:
    """Data keys, out of a cache that is bounded, aged and leased, or from the key store and the KMS.

    ``cache.sealing`` and ``cache.opening`` are for the hot paths: what is there and fresh needs no call of
    the ring at all. Everything else comes here, where nothing is hot.
    """

    def __init__(
        self, kms: KMS, store: KeyStore, *, policy: CachePolicy, rotation: RotationPolicy, clock: Clock
    ) -> None:
        self.store = store
        self.clock = clock
        self.cache = IndexCache(policy.max_keys)
        self.lease = Lease(store, self.cache, seconds=policy.lease, grace=policy.grace, clock=clock)
        self.loader = KeyLoader(
            RetryingKMS(kms), store, self.cache, self.lease, policy=policy, rotation=rotation, clock=clock
        )
        self.budget = Budget(store, self.cache, rotation)
        self._indexing = IndexKeyLoader(store, self.cache, self.lease, self.loader, clock=clock)
        in_forked_children(self, KeyRing.after_fork)

    def for_sealing(self, slot: KeySlot, suite: Suite, kind: int) -> ValueKey:
        """The slot's active key, fresh, with one message drawn from its reserve; made first if there is none.

        Raises:
            ConfigurationError: the tenant or the subject cannot be a name (docs/format.md, 1).
            KeyShredded, KeySuspended: the scope has no key to seal with.
            KMSError, KeyStoreError: a backend failed, and no grace covers it.
        """
        _check_names(slot)
        made = self.cache.sealing[suite.number, kind].get(
            slot.tenant if slot.subject is None else (slot.tenant, slot.subject)
        )
        for _ in range(ROUNDS):
            if made is not None and self._freshen(made):
                if self.budget.draw(made.key):
                    return made
                self.loader.supersede(made.key.record)
            key = self.loader.active([slot])[slot]
            if isinstance(key, Exception):
                raise key
            made = self.cache.value_key(key, suite, kind)
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

    def index_keys(self, tenant: str) -> IndexKeys:
        """The tenant's keys for the tokens of its blind indexes, fresh; made first if there are none.

        Raises:
            ConfigurationError: the tenant cannot be a name (docs/format.md, 1).
            KeyShredded, KeySuspended: the tenant has no key to write tokens with.
            KMSError, KeyStoreError: a backend failed, and no grace covers it.
        """
        check_name("tenant", tenant)
        return self._indexing.of(tenant)

    def indexing_may_wait(self, tenant: str) -> bool:
        """Whether ``index_keys`` now might have to ask a backend first.

        An event loop then does better in a thread.
        """
        return self._indexing.may_wait(tenant)

    def sealing_may_wait(self, slot: KeySlot) -> bool:
        """Whether sealing for a slot now might have to ask a backend first.

        An event loop then does better in a thread.
        """
        key = self.cache.active(slot)
        return key is None or not self._serves(key) or self.budget.may_wait(key)

    def opening_may_wait(self, blob: bytes) -> bool:
        """Whether opening a ciphertext now might have to ask a backend first.

        An event loop then does better in a thread.
        """
        key = self.cache.get(blob[KEY_ID_START:HEADER_SIZE])
        return key is None or not self._serves(key)

    def prefetch(self, *, slots: Iterable[KeySlot] = (), blobs: Iterable[bytes | None] = ()) -> None:
        """Have the active keys of slots, and the keys that ciphertexts name, in the cache.

        What is missing comes in one batch. A key that cannot be had is no error here: its use is. Nor is what
        is no ciphertext.

        Raises:
            ConfigurationError: a tenant or a subject cannot be a name.
        """
        now = self.clock()
        missing: dict[bytes, None] = {}
        for header in {bytes(blob[:HEADER_SIZE]) for blob in blobs if isinstance(blob, _BYTES)}:
            made = self.cache.opening.get(header)
            if len(header) == HEADER_SIZE and (made is None or now >= made.fresh_until):
                missing[header[KEY_ID_START:]] = None
        if missing:
            self.loader.by_id(missing)
        wanted = list(slots)
        for slot in wanted:
            _check_names(slot)
        if wanted:
            keys = self.loader.active(wanted).values()
            self.budget.stock(key for key in keys if isinstance(key, CachedKey))

    def rotate(self, slot: KeySlot) -> KeyRecord:
        """A new active key for the slot; the former one is retired and still opens what it sealed.

        Raises:
            KeyNotFound: the slot never had a key.
            KeyShredded: the scope was shredded.
            KMSError, KeyStoreError: a backend failed.
        """
        return self.loader.rotate(slot)

    def after_fork(self) -> None:
        """In a child.

        Locks and flights of its own, no claim on what the parent reserved. The lease goes on: the clock
        checks it.
        """
        self.cache.after_fork()
        self.lease.after_fork()
        self.budget.after_fork()
        self.loader.after_fork()
        self._indexing.after_fork()

    def _serves(self, key: CachedKey) -> bool:
        now = self.clock()
        return now < self.lease.until and now < key.expires

    def _freshen(self, made: ValueKey) -> bool:
        """Let the hot paths use ``made`` up to the end of the lease or of its age.

        False if it has to be loaded again.
        """
        until = self.lease.ensure()
        with self.cache.lock:
            key = made.key
            # No revocation reaches a key that had to make room for others while it was on its way here.
            until = min(key.vouched_until if key.evicted else until, key.expires)
            if self.clock() >= until:
                return False
            key.touched = True
            made.fresh_until = until
            return True


def _check_names(slot: KeySlot) -> None:
    check_name("tenant", slot.tenant)
    if slot.subject is not None:
        check_name("subject", slot.subject)
