"""Refreshing ahead: what is in use is renewed before its time is over, so that no request waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import NamedTuple

from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.lease import Lease
from fieldvault.keys.permission import Permission
from fieldvault.keys.proving import Prover

__all__ = ["Refresher"]

_LOG = logging.getLogger("fieldvault")

_SHORTEST_WAIT = 0.5
"""Seconds before another try is worth its while."""

_LAST_WORDS = 1.0
"""Seconds that ``close`` waits for a refresh that is under way."""


class _Unproved(NamedTuple):
    """A key whose permission is due, and when the KMS was last asked about that."""

    key: CachedKey
    since: float


class Refresher:
    """Renews keys, permissions and the lease in one thread, which begins with the first that is due.

    It ends when all is done.

    Something is due when it is used in the last share of its time (``CachePolicy.refresh_ahead``). With a key
    go all others that are due and that were used within the last lease, in one batch. What cannot be reached
    changes nothing: it is tried again at half of what time is left, and when that is over a request meets it.
    What is refused is refused at once.

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
        """In a child: the parent's thread does not exist here."""
        self._thread: threading.Thread | None = None
        self._due: dict[bytes, None] = {}
        self._unproved: dict[Permission, _Unproved] = {}
        self._is_lease_due = False

    def bound(self, key: CachedKey, until: float) -> float:
        """``until``, or the earlier moment at which to look again; to be asked under the cache's lock."""
        now = self._clock()
        if self._lease.due_at <= now < self._lease.until:
            self._lease.due_at = _next_try(now, self._lease.until)
            self._is_lease_due = True
        if not key.evicted and key.due_at <= now < key.expires:
            key.due_at = _next_try(now, key.expires)
            self._due[key.record.key_id] = None
        permission = key.permission
        if not key.evicted and permission.due_at <= now < permission.until:
            permission.due_at = _next_try(now, permission.until)
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
        if not (self._due or self._unproved or self._is_lease_due):
            return
        with self._cache.lock:
            if self._thread is not None or self._is_closed:
                return
            self._thread = thread = threading.Thread(
                target=self._work, name="fieldvault refresh", daemon=True
            )
        try:
            thread.start()
        except RuntimeError:
            # No thread is to be had, as at the interpreter's end. The request goes on with what it has.
            with self._cache.lock:
                self._thread = None

    def close(self) -> None:
        """Begin nothing more, and wait a moment for what is under way; it keeps nothing."""
        with self._cache.lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LAST_WORDS)

    def _work(self) -> None:
        while True:
            with self._cache.lock:
                due, self._due = self._due, {}
                unproved, self._unproved = self._unproved, {}
                is_lease_due, self._is_lease_due = self._is_lease_due, False
                if self._is_closed:
                    # What came back after the end was put into the cache of a closed vault.
                    self._cache.drop(None)
                if self._is_closed or not (due or unproved or is_lease_due):
                    self._thread = None
                    return
            try:
                if is_lease_due:
                    self._lease.renew_ahead()
                if due:
                    self._renew([*due, *self._others(due)])
                if unproved:
                    self._prover.prove_ahead(self._all_unproved(unproved))
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
                key.due_at = _next_try(now, key.expires)
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
                permission.due_at = _next_try(now, permission.until)
                self._unproved.pop(permission, None)
        # What a renewal of keys has proved meanwhile is not asked about again.
        found.update((each, key) for each, (key, since) in unproved.items() if each.asked_at == since)
        return list(found.values())


def _next_try(now: float, end: float) -> float:
    half = (end - now) / 2
    return now + half if half >= _SHORTEST_WAIT else inf
