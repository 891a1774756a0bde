"""The lease: how long a process may go on with what it cached before it asks the key store again."""

from __future__ import annotations

from math import inf

from fieldvault.errors import KeyStoreError
from fieldvault.keys.cache import KeyCache
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.protocols import KeyStore

__all__ = ["Lease"]

_PAUSE = 1.0
"""Seconds between two tries to reach an unreachable key store while the grace lasts."""


class Lease:
    """The generation this process has caught up with, and until when it may trust it.

    A lease runs from the moment *before* the generation was read. So whatever was shredded before a read is
    seen by that read, and whatever is shredded after it is not served once ``seconds`` have passed since the
    shred.
    """

    __slots__ = (
        "_cache",
        "_clock",
        "_flight",
        "_grace",
        "_pause_until",
        "_seconds",
        "_store",
        "generation",
        "until",
    )

    def __init__(
        self, store: KeyStore, cache: KeyCache, *, seconds: float, grace: float, clock: Clock
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._grace = grace
        self._clock = clock
        self._cache = cache
        self._flight: SingleFlight[str, int] = SingleFlight()
        self._pause_until = -inf
        self.generation: int | None = None
        self.until = -inf

    def ensure(self) -> float:
        """Until when cached keys may be used; asks the key store first if the lease ran out.

        Raises: KeyStoreError: the key store cannot be reached and the grace is over, or it answers with a
        past that this process has already seen beyond.
        """
        now = self._clock()
        if now < self.until:
            return self.until
        if now < self._pause_until:
            return self._pause_until
        try:
            self.renew()
        except KeyStoreError:
            if now >= self.until + self._grace:
                raise
            self._pause_until = min(now + _PAUSE, self.until + self._grace)
            return self._pause_until
        return self.until

    def renew(self) -> None:
        """Read the generation, drop the keys of scopes that were touched since, and begin a new lease."""
        outcome = self._flight.run(("lease",), self._read)["lease"]
        if isinstance(outcome, Exception):
            raise outcome

    def observe(self, generation: int, asked_at: float) -> None:
        """Take note of a generation that a read, begun at ``asked_at``, saw."""
        if self.generation is None:
            self.generation = generation
        if generation != self.generation:
            self.renew()
        elif asked_at + self._seconds > self.until:
            self.until = asked_at + self._seconds

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._flight.reset()

    def _read(self, keys: list[str]) -> dict[str, int | Exception]:
        asked_at = self._clock()
        generation = self._store.generation()
        seen = self.generation
        stale = self._store.changes(seen) if seen is not None and generation > seen else ()
        # One step under the cache's lock: whoever puts a key in compares generations under it, so no key read
        # before a shred can slip in after the eviction.
        with self._cache.lock:
            if seen is not None and generation < seen:
                self._cache.drop(None)
                raise KeyStoreError(
                    f"the key store is at generation {generation}, this process has seen {seen}: an "
                    f"older copy was restored; "
                    "shreds may be missing from it, and nothing is served until it has caught up"
                )
            self._cache.drop(stale)
            self.generation = generation
            self.until = asked_at + self._seconds
        return dict.fromkeys(keys, generation)
