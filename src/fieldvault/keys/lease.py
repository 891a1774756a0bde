"""The lease: how long a process may go on with what it cached before it asks the key store again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import NamedTuple

from fieldvault.errors import KeyStoreError, KeyStoreRefused
from fieldvault.keys.cache import KeyCache, touched_by
from fieldvault.keys.clock import Clock, next_try
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.protocols import KeyStore
from fieldvault.keys.records import KeyRecord

__all__ = ["Lease", "Reading"]

_PAUSE = 1.0
"""Seconds between two tries to reach an unreachable key store in the grace; half a lease, if that is less."""

_TRIES = 2
"""Reads of the generation, where the first gave no lease.

A process that stood still in the midst of one gets its answer too late.
"""

_MEMORY = 64
"""Steps of catching up whose changes are remembered.

A load that lasts longer than these reads its records again.
"""


class Reading(NamedTuple):
    """A read of the key store that is about to begin: when, and the generation known before it."""

    at: float
    seen: int | None


class _Step(NamedTuple):
    """One step of catching up: the generation that it reached, and whose records it made stale."""

    generation: int
    touched: Callable[[KeyRecord], bool]


class Lease:
    """The generation this process has caught up with, and until when it may trust it.

    A lease runs from the moment *before* the generation was read. So whatever was shredded before a read is
    seen by that read, and whatever is shredded after it is not served once ``seconds`` have passed since the
    shred. The generation never goes back here; that of a key store does only when an older copy of it was
    restored.

    From ``due_at`` on its next use has it renewed in the background, as far as the time goes that ``ahead``
    is a share of. Past the lease whoever needs it waits for the key store, once: when that was found out, it
    is asked in the background, and cached keys serve meanwhile, no longer than the grace.

    ``generation``, ``until`` and the cache change together, under the cache's lock: whoever puts a key in
    asks ``vouches`` under it, so no key read before a shred can slip in after the eviction.
    """

    __slots__ = (
        "_ahead",
        "_cache",
        "_clock",
        "_failed_at",
        "_flight",
        "_grace",
        "_is_asked",
        "_pause_until",
        "_refused",
        "_seconds",
        "_step",
        "_steps",
        "_store",
        "due_at",
        "generation",
        "until",
    )

    def __init__(
        self,
        store: KeyStore,
        cache: KeyCache,
        *,
        seconds: float,
        grace: float,
        clock: Clock,
        ahead: float = 0.0,
    ) -> None:
        self._store = store
        self._ahead = ahead
        self._seconds = seconds
        self._step = min(_PAUSE, seconds / 2)
        self._grace = grace
        self._clock = clock
        self._cache = cache
        self._flight: SingleFlight[str, None] = SingleFlight()
        self._steps: deque[_Step] = deque(maxlen=_MEMORY)
        self._pause_until = -inf
        self._refused = False
        # When the key store was last found out past the lease, and whether it is being asked behind requests.
        self._failed_at = -inf
        self._is_asked = False
        self.generation: int | None = None
        self.until = -inf
        self.due_at = inf

    @property
    def age(self) -> float | None:
        """Seconds since the key store was last known to have nothing new; ``None`` before the first read."""
        return None if self.until == -inf else self._clock() - (self.until - self._seconds)

    @property
    def is_out(self) -> bool:
        """Whether the key store was found out past the lease, and has not answered since."""
        return self._failed_at > -inf

    def ensure(self) -> float:
        """Until when cached keys may be used; asks the key store first if the lease ran out.

        Raises:
            KeyStoreError: the key store cannot be reached and the grace is over; or it refused, after which
                there is no grace until it lets this process in again; or it answers with a past that this
                process has already seen beyond.
        """
        now = self._clock()
        if now < self.until:
            return self.until
        if now < self._pause_until:
            return self._pause_until
        if self._serves_behind(now):
            return self._pause(now)
        problem: Exception | None = None
        for _ in range(_TRIES):
            problem = self._flight.run(("lease",), self._renew_once)["lease"]
            # An answer that was long in coming may be no lease any more, and an outage may have outlasted the
            # grace: what counts is the time now.
            now = self._clock()
            if now < self.until:
                return self.until
            if problem is not None:
                break
        if problem is not None and not isinstance(problem, KeyStoreError):
            raise problem
        if not self._refused and now < self.until + self._grace:
            return self._pause(now)
        raise problem or KeyStoreError("the key store takes longer to answer than a lease lasts")

    def may_wait(self) -> bool:
        """Whether ``ensure`` now might have to ask the key store first."""
        now = self._clock()
        return now >= self.until and now >= self._pause_until and not self._serves_behind(now)

    def take_due(self, now: float) -> bool:
        """Whether it is to be renewed in the background now, which is said once; under the cache's lock."""
        is_out = self.is_out and not self._refused
        end = self.until + self._grace if is_out else self.until
        if not self.due_at <= now < end:
            return False
        self.due_at = now + self._step if is_out else next_try(now, end)
        return True

    def renew(self) -> None:
        """Read the generation, drop the keys of scopes that were touched since, and begin a new lease.

        The read begins within this call, so it sees what the caller did before.

        Raises:
            KeyStoreError: the key store cannot be reached, or answers with a past.
        """
        reading = self.begin()
        generation = self._store.generation()
        if reading.seen is None:
            touched = touched_by(None)
        elif generation > reading.seen:
            touched = touched_by(self._store.changes(reading.seen))
        else:
            touched = touched_by(())
        with self._cache.lock:
            self._refuse_the_past(generation, reading)
            if self.generation is None or generation > self.generation:
                self._reach(generation, touched)
            self._extend(reading)

    def renew_ahead(self) -> None:
        """Begin a new lease while the old one still runs; whoever needs one meanwhile waits for this read.

        Raises:
            KeyStoreError: as ``renew``.
        """
        until = self.until
        self._is_asked = True
        try:
            problem = self._flight.run(("lease",), partial(self._renew_before, until))["lease"]
        finally:
            self._is_asked = False
        if problem is not None:
            raise problem

    def begin(self) -> Reading:
        """What ``observe`` wants to know of a read of the key store; asked before it."""
        return Reading(self._clock(), self.generation)

    def observe(self, generation: int, reading: Reading) -> None:
        """Take note of a generation that a read of the key store saw, and catch up with it.

        Raises:
            KeyStoreError: it is a past, or catching up failed.
        """
        with self._cache.lock:
            self._refuse_the_past(generation, reading)
            if self.generation is None:
                self._reach(generation, touched_by(None))
            if self.generation is not None and generation <= self.generation:
                self._extend(reading)
                return
        self.renew()

    def vouches(self, record: KeyRecord, generation: int) -> bool:
        """Whether a record, read at ``generation``, is still as it was, as far as this process has caught up.

        To be asked under the cache's lock.
        """
        if self.generation is None or generation > self.generation:
            return False
        newer = [step for step in self._steps if step.generation > generation]
        return len(newer) < _MEMORY and not any(step.touched(record) for step in newer)

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._flight.reset()
        self._is_asked = False

    def _renew_once(self, keys: list[str]) -> dict[str, None]:
        if self._clock() >= self.until:
            self._try_to_renew()
        return dict.fromkeys(keys)

    def _renew_before(self, until: float, keys: list[str]) -> dict[str, None]:
        if self.until <= until:
            self._try_to_renew()
        return dict.fromkeys(keys)

    def _try_to_renew(self) -> None:
        try:
            self.renew()
        except KeyStoreRefused:
            with self._cache.lock:
                self._refused, self._pause_until = True, -inf
            raise
        except KeyStoreError:
            now = self._clock()
            # What failed while the lease ran is no news past it: a request asks first.
            if now >= self.until:
                self._failed_at = now
                self.due_at = now + self._step if self._ahead else inf
            raise

    def _serves_behind(self, now: float) -> bool:
        """Whether cached keys serve past the lease while the key store, found out, is asked behind them.

        What was found out longer ago than a lease is no knowledge, unless an answer is being waited for.
        """
        return (
            bool(self._ahead)
            and not self._refused
            and now < self.until + self._grace
            and (now < self._failed_at + self._seconds or (self._is_asked and self.is_out))
        )

    def _pause(self, now: float) -> float:
        with self._cache.lock:
            # Not where a refusal, or a past, has come meanwhile.
            self._pause_until = -inf if self._refused else min(now + self._step, self.until + self._grace)
            return self._pause_until

    def _reach(self, generation: int, touched: Callable[[KeyRecord], bool]) -> None:
        self._cache.drop_where(touched)
        self._steps.append(_Step(generation, touched))
        self.generation = generation

    def _extend(self, reading: Reading) -> None:
        # Valid also where others have moved the generation on meanwhile: at the moment of this reading the
        # key store was not beyond the generation that is known now.
        self._refused = False
        self._failed_at = -inf
        until = reading.at + self._seconds
        if until > self.until:
            self.until = until
            self.due_at = until - self._ahead * self._seconds if self._ahead else inf

    def _refuse_the_past(self, generation: int, reading: Reading) -> None:
        if reading.seen is None or generation >= reading.seen:
            return
        self._cache.drop(None)
        self.until = self._pause_until = self._failed_at = -inf
        raise KeyStoreError(
            f"the key store is at generation {generation}, this process has seen {reading.seen}: an older "
            f"copy was restored; shreds may be missing from it, and nothing is served until it has caught up"
        )
