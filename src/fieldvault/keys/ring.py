"""The key ring: the key to seal a scope's values with, the key to open a ciphertext with."""

from __future__ import annotations

from collections.abc import Iterable

from fieldvault.context import check_name
from fieldvault.envelope import HEADER_SIZE, KEY_ID_START, Envelope
from fieldvault.errors import DecryptionError, KeyStoreError
from fieldvault.forks import in_forked_children
from fieldvault.keys.budget import Budget
from fieldvault.keys.cached import CachedKey, ValueKey
from fieldvault.keys.clock import Clock, CountedClock
from fieldvault.keys.indexing import IndexCache, IndexKeyLoader, IndexKeys
from fieldvault.keys.lease import Lease
from fieldvault.keys.loading import ROUNDS, KeyLoader
from fieldvault.keys.observing import Observer, observed_kms, observed_store
from fieldvault.keys.policy import CachePolicy, RetryPolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore, ManyRootKeys
from fieldvault.keys.proving import Prover
from fieldvault.keys.records import KeyInfo, KeyRecord, KeySlot, Purpose
from fieldvault.keys.refreshing import Refresher
from fieldvault.keys.retrying import RetryingKMS
from fieldvault.keys.stats import Meter, Stats
from fieldvault.suites import AES_256_SIV, Suite, suite_numbered

__all__ = ["KeyRing"]

_BYTES = (bytes, bytearray, memoryview)


class KeyRing:
    """Data keys, out of a cache that is bounded, aged and leased, or from the key store and the KMS.

    ``cache.sealing`` and ``cache.opening`` are for the hot paths: what is there and fresh needs no call of
    the ring at all. Everything else comes here, where nothing is hot.
    """

    def __init__(
        self,
        kms: KMS,
        store: KeyStore,
        *,
        policy: CachePolicy,
        rotation: RotationPolicy,
        clock: Clock,
        retries: RetryPolicy,
        observer: Observer | None = None,
    ) -> None:
        self.meter = Meter(observer)
        self.store = store = observed_store(store, self.meter.called)
        names = kms if isinstance(kms, ManyRootKeys) else None
        self.kms = RetryingKMS(
            observed_kms(kms, self.meter.called), policy=retries, clock=clock, meter=self.meter, names=names
        )
        self.clock = clock
        self.hot_clock = CountedClock(clock)
        self.cache = IndexCache(policy.max_keys)
        self.lease = Lease(
            store,
            self.cache,
            seconds=policy.lease,
            grace=policy.grace,
            clock=clock,
            ahead=policy.refresh_ahead,
        )
        self.prover = Prover(self.kms.for_proofs(), self.cache, policy=policy, clock=clock, names=names)
        self.loader = KeyLoader(
            self.kms,
            store,
            self.cache,
            self.lease,
            self.prover,
            policy=policy,
            rotation=rotation,
            clock=clock,
            meter=self.meter,
        )
        self.refresher = Refresher(self.cache, self.lease, self.prover, self.loader.renew, clock=clock)
        self.budget = Budget(store, self.cache, rotation)
        self._indexing = IndexKeyLoader(store, self.cache, self.lease, self.prover, self.loader, clock=clock)
        in_forked_children(self, KeyRing.after_fork)

    def for_sealing(self, slot: KeySlot, suite: Suite, kind: int) -> ValueKey:
        """The slot's active key, fresh, with one message drawn from its reserve; made first if there is none.

        Raises:
            ConfigurationError: the tenant or the subject cannot be a name (docs/format.md, 1).
            KeyShredded, KeySuspended: the scope has no key to seal with.
            KMSError, KeyStoreError: a backend failed, and no grace covers it.
        """
        self.meter.refuse_observers()
        _check_names(slot)
        made = self.cache.sealing[suite.number, kind].get(
            slot.tenant if slot.subject is None else (slot.tenant, slot.subject)
        )
        held = self._held(self.cache.active(slot))
        for _ in range(ROUNDS):
            if made is not None and self._freshen(made):
                if self.budget.draw(made.key):
                    self._found(made.key, held)
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
        self.meter.refuse_observers()
        envelope = Envelope.parse(blob)
        made = self.cache.opening.get(blob[:HEADER_SIZE])
        held = self._held(self.cache.get(envelope.key_id))
        for _ in range(ROUNDS):
            if made is not None and self._freshen(made):
                self._found(made.key, held)
                return made
            key = self.loader.by_id([envelope.key_id])[envelope.key_id]
            if isinstance(key, Exception):
                raise key
            suite = suite_numbered(envelope.suite)
            if not _seals_values(key.record.purpose, suite):
                raise DecryptionError
            made = self.cache.value_key(key, suite, envelope.kind)
        raise KeyStoreError(f"the state of key {envelope.key_id.hex()} changes faster than it can be read")

    def index_keys(self, tenant: str) -> IndexKeys:
        """The tenant's keys for the tokens of its blind indexes, fresh; made first if there are none.

        Raises:
            ConfigurationError: the tenant cannot be a name (docs/format.md, 1).
            KeyShredded, KeySuspended: the tenant has no key to write tokens with.
            KMSError, KeyStoreError: a backend failed, and no grace covers it.
        """
        self.meter.refuse_observers()
        check_name("tenant", tenant)
        made = self._indexing.of(tenant)
        if self.clock() >= min(made.active.due_at, made.active.permission.due_at, self.lease.due_at):
            self.refresher.note(made.usable)
        return made

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
        self.meter.refuse_observers()
        now = self.clock()
        missing: dict[bytes, None] = {}
        for header in {bytes(blob[:HEADER_SIZE]) for blob in blobs if isinstance(blob, _BYTES)}:
            made = self.cache.opening.get(header)
            if len(header) == HEADER_SIZE and (made is None or now >= made.fresh_until):
                missing[header[KEY_ID_START:]] = None
        if missing:
            self.loader.by_id(missing)
        self.fetch(slots)

    def fetch(self, slots: Iterable[KeySlot]) -> dict[KeySlot, Exception]:
        """Have the active keys of slots in the cache, with messages reserved; what stands against the others.

        Raises:
            ConfigurationError: a tenant or a subject cannot be a name.
        """
        self.meter.refuse_observers()
        wanted = list(slots)
        for slot in wanted:
            _check_names(slot)
        outcome = self.loader.active(wanted)
        self.budget.stock(key for key in outcome.values() if isinstance(key, CachedKey))
        return {slot: key for slot, key in outcome.items() if isinstance(key, Exception)}

    def prefetch_index(self, tenants: Iterable[str]) -> None:
        """Have the active index keys of tenants in the cache, in one batch.

        A key that cannot be had is no error here: its use is.

        Raises:
            ConfigurationError: a tenant cannot be a name.
        """
        self.meter.refuse_observers()
        slots = [KeySlot(tenant, None, Purpose.INDEX) for tenant in tenants]
        for slot in slots:
            _check_names(slot)
        self.loader.active(slots)

    def stats(self) -> Stats:
        """The figures of now."""
        return self.meter.read(
            hits=self.hot_clock.readings,
            keys=len(self.cache),
            lease_age=self.lease.age,
            breaker=self.kms.breaker.state,
        )

    def close(self) -> None:
        """Forget all keys, and refresh none any more."""
        self.refresher.close()
        self.cache.drop(None)

    def rotate(self, slot: KeySlot) -> KeyRecord:
        """A new active key for the slot; the former one is retired and still opens what it sealed.

        Raises:
            KeyNotFound: the slot never had a key.
            KeyShredded: the scope was shredded.
            KMSError, KeyStoreError: a backend failed.
        """
        self.meter.refuse_observers()
        return self.loader.rotate(slot)

    def replace(self, key: KeyInfo) -> KeyRecord | None:
        """A new active key in place of this one; ``None`` if it is not the active one any more.

        Raises:
            KeyShredded, KeySuspended: the scope was shredded, or the key that wraps its keys is suspended.
            KMSError, KeyStoreError: a backend failed.
        """
        self.meter.refuse_observers()
        return self.loader.replace(key)

    def after_fork(self) -> None:
        """In a child.

        Locks and flights of its own, no claim on what the parent reserved. The lease goes on: the clock
        checks it.
        """
        self.meter.after_fork()
        self.hot_clock.after_fork()
        self.kms.after_fork()
        self.refresher.after_fork()
        self.cache.after_fork()
        self.lease.after_fork()
        self.prover.after_fork()
        self.budget.after_fork()
        self.loader.after_fork()
        self._indexing.after_fork()

    def _serves(self, key: CachedKey) -> bool:
        return self.clock() < min(key.expires, key.permission.until) and not self.lease.may_wait()

    def _held(self, key: CachedKey | None) -> CachedKey | None:
        """The key, unless its age is over."""
        return None if key is None or self.clock() >= key.expires else key

    def _found(self, key: CachedKey, held: CachedKey | None) -> None:
        """A look-up ends; it was a hit if nobody waited for the key."""
        if key is held:
            self.meter.served(1)

    def _freshen(self, made: ValueKey) -> bool:
        """Let the hot paths use ``made`` up to the end of the lease or of its age.

        False if it has to be loaded again.
        """
        until = self.lease.ensure()
        key = made.key
        if self.clock() >= key.permission.until:
            self.prover.ensure((key,))
        with self.cache.lock:
            # No revocation reaches a key that had to make room for others while it was on its way here.
            until = min(key.vouched_until if key.evicted else until, key.expires, key.permission.until)
            if self.clock() >= until:
                return False
            key.touched = True
            made.fresh_until = self.refresher.bound(key, until)
        self.refresher.begin()
        return True


def _seals_values(purpose: Purpose, suite: Suite) -> bool:
    """A data key in every suite; an index key what is equal where values are."""
    return purpose is Purpose.DATA or (purpose is Purpose.INDEX and suite is AES_256_SIV)


def _check_names(slot: KeySlot) -> None:
    check_name("tenant", slot.tenant)
    if slot.subject is not None:
        check_name("subject", slot.subject)
