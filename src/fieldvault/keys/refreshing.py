"""Refreshing ahead: what is in use is renewed before its time is over, so that no request waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.clock import Clock, next_try
from fieldvault.keys.lease import Lease
from fieldvault.keys.permission import Permission
from fieldvault.keys.proving import Prover

__all__ = ["Refresher"]

_LOG = logging.getLogger("fieldvault")

_LAST_WORDS = 1.0
"""Seconds that ``close`` waits for a refresh that is under way."""


class _Unproved(NamedTuple):
    """A key whose permission is due, and when the KMS was last asked about that."""

    key: CachedKey
    since: float


class _Lane:
    """Work of one kind, done piece by piece in a thread that begins with the first and ends with the last.

    ``step`` does a piece; false: there was none.
    """

    __slots__ = ("step", "thread")

    def __init__(self, step: Callable[[], bool]) -> None:
        self.step = step
        self.thread: threading.Thread | None = None

    def run(self) -> None:
        try:
            while self.step():
                pass
        finally:
            # Where an interruption ended it, the next piece gets a thread of its own.
            if self.thread is threading.current_thread():
                self.thread = None


class Refresher:
    """Renews keys, permissions and the lease in the background: the lease in one thread, the rest in another.

    So a key store that hangs does not keep the KMS from being asked. A thread ends when all is done.

    Something is due when it is used in the last share of its time (``CachePolicy.refresh_ahead``). With a key
    go all others that are due and that were used within the last lease, in one batch. What cannot be reached
    changes nothing: it is tried again at half of what time is left, and when that is over a request meets it,
    once. What was found out so is asked for here from then on, as far as the grace goes. What is refused is
    refused at once.

    ``due_at`` of keys, permissions and lease bounds what the hot paths are told, so it is they who find out,
    without another comparison.
    """

    def __init__(
        self,
        cache: KeyCache,
        lease: Lease,
        prover: Prover,
        renew: Callable[[Sequence[bytes]], None],
        *,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._lease = lease
        self._prover = prover
        self._renew = renew
        self._clock = clock
        self._is_closed = False
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: the parent's threads do not exist here."""
        self._due: dict[bytes, None] = {}
        self._unproved: dict[Permission, _Unproved] = {}
        self._is_lease_due = False
        self._leases, self._keys = _Lane(self._refresh_lease), _Lane(self._refresh_keys)

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that are at work now."""
        found = (lane.thread for lane in (self._leases, self._keys))
        return [thread for thread in found if thread is not None]

    def bound(self, key: CachedKey, until: float) -> float:
        """``until``, or the earlier moment at which to look again; to be asked under the cache's lock."""
        now = self._clock()
        if self._lease.take_due(now):
            self._is_lease_due = True
        if not key.evicted and key.due_at <= now < key.expires:
            key.due_at = next_try(now, key.expires)
            self._due[key.record.key_id] = None
        permission = key.permission
        if not key.evicted and permission.due_at <= now < permission.until:
            permission.due_at = next_try(now, permission.until)
            self._unproved[permission] = _Unproved(key, permission.asked_at)
        for due_at in (self._lease.due_at, key.due_at, permission.due_at):
            if due_at > now:
                until = min(until, due_at)
        key.served_until = until
        return until

    def note(self, keys: Iterable[CachedKey]) -> None:
        """Keys are in use that no ``ValueKey`` was made of, and may be due."""
        with self._cache.lock:
            for key in keys:
                self.bound(key, key.expires)
        self.begin()

    def begin(self) -> None:
        """Begin with what is due, if there is anything; to be called without the lock."""
        if self._is_lease_due:
            self._begin(self._leases)
        if self._due or self._unproved:
            self._begin(self._keys)

    def close(self) -> None:
        """Begin nothing more, and wait a moment for what is under way; it keeps nothing."""
        with self._cache.lock:
            self._is_closed = True
            threads = self.threads
        end = time.monotonic() + _LAST_WORDS
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0, end - time.monotonic()))

    def _begin(self, lane: _Lane) -> None:
        with self._cache.lock:
            if lane.thread is not None or self._is_closed:
                return
            lane.thread = thread = threading.Thread(target=lane.run, name="fieldvault refresh", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No thread is to be had, as at the interpreter's end. The request goes on with what it has.
            lane.thread = None

    def _refresh_lease(self) -> bool:
        with self._cache.lock:
            is_due, self._is_lease_due = self._is_lease_due, False
            if self._ended(self._leases, is_due=is_due):
                return False
        self._try(self._lease.renew_ahead)
        return True

    def _refresh_keys(self) -> bool:
        with self._cache.lock:
            due, self._due = self._due, {}
            unproved, self._unproved = self._unproved, {}
            if self._ended(self._keys, is_due=bool(due or unproved)):
                return False
        held = filter(None, map(self._cache.get, due))
        with self._prover.asking([*unproved, *(key.permission for key in held)]):
            # There is no renewing a key without its record.
            if due and not self._lease.is_out:
                self._try(lambda: self._renew([*due, *self._others(due)]))
            if unproved:
                self._try(lambda: self._prover.prove_ahead(self._all_unproved(unproved)))
        return True

    def _ended(self, lane: _Lane, *, is_due: bool) -> bool:
        """Whether there is nothing to do; under the lock, so that what becomes due next begins a thread."""
        if self._is_closed:
            # What came back after the end was put into the cache of a closed vault.
            self._cache.drop(None)
        if self._is_closed or not is_due:
            lane.thread = None
            return True
        return False

    @staticmethod
    def _try(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - nobody waits here; who needs the key meets it again
            _LOG.debug("a refresh ahead failed: %s", type(error).__name__)

    def _others(self, due: dict[bytes, None]) -> list[bytes]:
        """The other keys that are due, of those that were used within the last lease."""
        now = self._clock()
        # Looked for without the lock: there may be very many keys.
        found = [
            key
            for key in self._cache.held()
            if key.due_at <= now < key.expires
            and key.served_until >= key.due_at
            and key.record.key_id not in due
        ]
        with self._cache.lock:
            for key in found:
                key.due_at = next_try(now, key.expires)
                self._due.pop(key.record.key_id, None)
        return [key.record.key_id for key in found]

    def _all_unproved(self, unproved: dict[Permission, _Unproved]) -> list[CachedKey]:
        """A key of each permission that is due, of those that were used since it was last proved."""
        now = self._clock()
        found = {
            key.permission: key
            for key in self._cache.held()
            if key.permission.due_at <= now < key.permission.until
            and key.served_until > key.permission.asked_at
        }
        with self._cache.lock:
            for permission in found:
                permission.due_at = next_try(now, permission.until)
                self._unproved.pop(permission, None)
        # What a renewal of keys has proved meanwhile is not asked about again.
        found.update((each, key) for each, (key, since) in unproved.items() if each.asked_at == since)
        return list(found.values())
