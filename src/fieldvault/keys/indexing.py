"""Index keys: a tenant's keys for the tokens of blind indexes, leased and cached like all others."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from math import inf
from operator import attrgetter
from typing import Protocol

from fieldvault.errors import KeyStoreError
from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.lease import Lease
from fieldvault.keys.loading import ROUNDS, KeyLoader
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.proving import Prover
from fieldvault.keys.records import KeyInfo, KeyRecord, KeySlot, KeyState, Purpose

__all__ = ["SETTLING", "Index", "IndexCache", "IndexKeyLoader", "IndexKeys", "settled_at"]


class Index(Hashable, Protocol):
    """What index keys want to know of an index or a deterministic field; equal ones make equal tokens."""

    def for_key(self, key: CachedKey, /) -> Callable[[bytes], bytes]:
        """What makes its tokens under a key."""
        ...


SETTLING = timedelta(minutes=5)
"""How far the clocks of two machines may be apart, while an index key is rotated."""


class IndexKeys:
    """A tenant's index keys: ``usable`` has the active one first, then the retired ones, newest first.

    A new key is searched for at once. It is written under from ``settles_at`` on, when every process knows
    it: else one that did not would take a value for new that another has written under it. Up to then tokens
    are written under the key before it, ``writing``.

    Suspended and destroyed keys are not among them: rows that were indexed under those are not found. Whoever
    holds on to this object does not hear of a shred; ask the ring for it anew for each statement.
    """

    __slots__ = ("_makers", "_writing", "fresh_until", "settles_at", "usable")

    def __init__(self, active: CachedKey, *retired: CachedKey, settles_at: float = -inf) -> None:
        self.usable = (active, *retired)
        self.fresh_until = -inf
        self.settles_at = settles_at
        self._writing = 0 if settles_at == -inf else 1
        self._makers: dict[Index, tuple[Callable[[bytes], bytes], ...]] = {}

    @property
    def active(self) -> CachedKey:
        """The newest key, which is written under sooner or later."""
        return self.usable[0]

    @property
    def writing(self) -> CachedKey:
        """The key that tokens are written under."""
        return self.usable[self._writing]

    def token(self, index: Index, content: bytes) -> bytes:
        """The token to write for a normalized value."""
        return (self._makers.get(index) or self._make(index))[self._writing](content)

    def tokens(self, index: Index, content: bytes) -> list[bytes]:
        """The tokens to search for, one for each usable key, the active one's first."""
        return [make(content) for make in self._makers.get(index) or self._make(index)]

    def _make(self, index: Index) -> tuple[Callable[[bytes], bytes], ...]:
        made = self._makers[index] = tuple(index.for_key(key) for key in self.usable)
        return made

    def __repr__(self) -> str:
        return f"<IndexKeys {' '.join(key.record.key_id.hex() for key in self.usable)}>"


def settled_at(key: KeyInfo, longest_lease: float) -> datetime:
    """When every process has learned of an index key, for which they have as long as a lease and a grace."""
    return key.created_at + timedelta(seconds=longest_lease) + SETTLING


class IndexCache(KeyCache):
    """The cache of unwrapped keys, and by tenant what its index keys were made into.

    ``indexing`` is a plain dictionary that is read without a lock. Whatever takes an index key out of the
    cache takes the tenant's entry with it, and with that the keys derived for its indexes.
    """

    __slots__ = ("indexing",)

    def __init__(self, max_keys: int) -> None:
        super().__init__(max_keys)
        self.indexing: dict[str, IndexKeys] = {}

    def after_fork(self) -> None:
        """In a child; see ``KeyCache``. The parent may have been in the midst of a change here as well."""
        super().after_fork()
        self.indexing.clear()

    def _evict(self, key: CachedKey) -> None:
        super()._evict(key)
        if key.record.purpose is Purpose.INDEX:
            made = self.indexing.pop(key.record.tenant, None)
            if made is not None:
                made.fresh_until = -inf


class IndexKeyLoader:
    """Finds a tenant's index keys, in one call of the KMS, and makes the first one.

    One caller at a time does so for a tenant. Nothing here holds a lock over input or output.
    """

    def __init__(
        self,
        store: KeyStore,
        cache: IndexCache,
        lease: Lease,
        prover: Prover,
        loader: KeyLoader,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._lease = lease
        self._prover = prover
        self._loader = loader
        self._clock = clock
        self._flight: SingleFlight[str, IndexKeys] = SingleFlight()

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._flight.reset()

    def of(self, tenant: str) -> IndexKeys:
        """The tenant's index keys, fresh; see ``KeyRing.index_keys``."""
        made = self._cache.indexing.get(tenant)
        if made is not None and (self._clock() < made.fresh_until or self._freshen(made)):
            return made
        outcome = self._flight.run([tenant], lambda _: {tenant: self._load(tenant)})[tenant]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def may_wait(self, tenant: str) -> bool:
        """Whether a backend might have to be asked first."""
        made = self._cache.indexing.get(tenant)
        now = self._clock()
        return (
            made is None
            or self._lease.may_wait()
            or now >= min(min(key.expires, key.permission.until) for key in made.usable)
        )

    def _load(self, tenant: str) -> IndexKeys:
        known = self._cache.indexing.get(tenant)
        if known is not None and self._freshen(known):
            # A flight that has just landed brought them.
            return known
        for _ in range(ROUNDS):
            self._lease.ensure()
            seen = self._lease.generation
            records = self._live(tenant, known)
            settles_at = self._settles_at(records, known)
            found = self._loader.by_id([record.key_id for record in records])
            outcomes = [found[record.key_id] for record in records]
            keys = [key for key in outcomes if isinstance(key, CachedKey)]
            with self._cache.lock:
                # Records read after that generation may be newer, and then go with the next one. They are not
                # older than anything this process has learned since, or it would have touched their tenant.
                vouched = seen is not None and self._lease.vouches(records[0], seen)
                whole = vouched and len(keys) == len(records)
                made = IndexKeys(*keys, settles_at=settles_at) if whole else None
                if made is not None and not any(key.evicted for key in keys):
                    self._cache.indexing[tenant] = made
            if made is not None and self._freshen(made):
                return made
            problem = next((key for key in outcomes if isinstance(key, Exception)), None)
            if vouched and problem is not None:
                raise problem
        raise KeyStoreError(f"the index keys of tenant {tenant!r} change faster than they can be read")

    def _settles_at(self, records: list[KeyRecord], known: IndexKeys | None) -> float:
        """When the first of them, the active one, is known to every process."""
        if len(records) == 1:
            return -inf
        try:
            longest = self._store.declare_lease(0)
        except KeyStoreError:
            if known is None:
                raise
            return known.settles_at
        waits = settled_at(records[0], longest) - datetime.now(UTC)
        return self._clock() + waits.total_seconds() if waits > timedelta(0) else -inf

    def _live(self, tenant: str, known: IndexKeys | None) -> list[KeyRecord]:
        """The records of the active key, which is made where there is none, and of the retired ones."""
        try:
            own = self._store.keys(tenant, None)
        except KeyStoreError:
            if known is None:
                raise
            # In an outage the list that the lease still covers stands; loading says how long its keys do.
            return [key.record for key in known.usable]
        index = [record for record in own if record.purpose is Purpose.INDEX]
        retired = [record for record in index if record.state is KeyState.RETIRED]
        retired.sort(key=attrgetter("version"), reverse=True)
        active = [record for record in index if record.state is KeyState.ACTIVE]
        if not active:
            slot = KeySlot(tenant, None, Purpose.INDEX)
            first = self._loader.active([slot])[slot]
            if isinstance(first, Exception):
                raise first
            active = [first.record]
        return active + retired

    def _freshen(self, made: IndexKeys) -> bool:
        """Let ``made`` serve up to the end of the lease or of its keys' age.

        False if it has to be loaded again.
        """
        until = self._lease.ensure()
        self._prover.ensure(made.usable)
        with self._cache.lock:
            # No revocation reaches a key that had to make room for others while it was on its way here.
            until = min(
                min(key.vouched_until if key.evicted else until, key.expires, key.permission.until)
                for key in made.usable
            )
            if made.settles_at > -inf:
                until = min(until, made.settles_at)
            if self._clock() >= until:
                return False
            for key in made.usable:
                key.touched = True
            made.fresh_until = until
            return True
