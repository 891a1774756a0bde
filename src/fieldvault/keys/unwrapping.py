"""Unwrapping: from the records of a snapshot to unwrapped keys in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from fieldvault.errors import (
    FieldVaultError,
    KeyNotFound,
    KeyShredded,
    KeyStoreError,
    KeySuspended,
    KMSError,
    KMSUnavailable,
)
from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.lease import Lease
from fieldvault.keys.material import LocalWrapper, unwrap_records
from fieldvault.keys.permission import Permission
from fieldvault.keys.policy import CachePolicy
from fieldvault.keys.protocols import KMS
from fieldvault.keys.proving import Prover
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Snapshot
from fieldvault.secret import Secret

__all__ = ["Outcome", "Unwrapper"]

_STALE_PAUSE = 5.0
"""Seconds that an expired key serves, within the grace, before the unavailable KMS or key store is asked for
it again.
"""

Outcome = CachedKey | Exception
"""A key, or the error that stands against it."""

_Wrapped = tuple[bytes, KeySlot, bytes | None]


class _Unwrapped(NamedTuple):
    """What the KMS answered, and the permission that it thereby proved."""

    secret: Secret
    permission: Permission


class Unwrapper:
    """Opens tenants' keys with the KMS, all of a batch in one call, and subjects' under their wrap keys.

    Nothing here holds a lock over input or output.
    """

    def __init__(
        self, kms: KMS, cache: KeyCache, lease: Lease, prover: Prover, *, policy: CachePolicy, clock: Clock
    ) -> None:
        self._kms = kms
        self._prover = prover
        self._cache = cache
        self._lease = lease
        self._policy = policy
        self._clock = clock
        # Also across loads by slot and by id, and named by all that is unwrapped: callers who read different
        # records of one key do not share an answer.
        self._flight: SingleFlight[_Wrapped, _Unwrapped] = SingleFlight()

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._flight.reset()

    def usable(self, key: CachedKey) -> bool:
        """Whether a cached key may serve now, the lease being looked after first."""
        self._lease.ensure()
        return not key.evicted and (self._clock() < key.expires or self._outlasts_known(key))

    def admit(
        self, snapshot: Snapshot, key_ids: Iterable[bytes], *, anew: bool = False
    ) -> dict[bytes, Outcome | None]:
        """The keys that a snapshot holds, unwrapped, into the cache; ``anew`` also those that are there.

        ``None`` for a key whose scope was touched since the snapshot: read again.
        """
        outcome: dict[bytes, Outcome | None] = {}
        wrapped: list[KeyRecord] = []
        for key_id in key_ids:
            problem = _unusable(snapshot, key_id)
            if problem is None:
                record = snapshot.records[key_id]
                cached = None if anew else self._cached(key_id)
                if cached is not None and cached.record.state is record.state:
                    outcome[key_id] = cached
                else:
                    wrapped.append(record)
            else:
                outcome[key_id] = problem
        above = self._above(wrapped, snapshot, anew=anew)
        wrappers: dict[bytes, LocalWrapper] = {}
        for record in wrapped:
            if record.parent is None:
                outcome[record.key_id] = above[record.key_id]
                continue
            parent = above[record.parent]
            if not isinstance(parent, CachedKey):
                outcome[record.key_id] = self.failed(record, parent) if parent is not None else None
                continue
            if record.parent not in wrappers:
                wrappers[record.parent] = LocalWrapper(parent.secret, record.parent)
            outcome[record.key_id] = self._open(wrappers[record.parent], record, snapshot, parent)
        return outcome

    def keep(
        self,
        record: KeyRecord,
        secret: Secret,
        snapshot: Snapshot,
        *,
        above: CachedKey | None = None,
        permission: Permission | None = None,
        reserved: int = 0,
    ) -> CachedKey | None:
        """Put a key into the cache, with a block of ``reserved`` messages.

        A key that the wrap key ``above`` opened is as old as that one: it cannot outlive the KMS's last word.
        ``permission`` is what unwrapping proved; a key with neither is new, and the KMS has wrapped it.
        ``None``, and nothing done, if its scope was touched since the snapshot that vouches for it.
        """
        now = self._clock()
        with self._cache.lock:
            if not self._lease.vouches(record, snapshot.generation):
                return None
            if above is None:
                ttl, ahead = self._policy.ttl, self._policy.refresh_ahead
                times = now, now + ttl, now + ttl * (1 - ahead) if ahead else inf
            else:
                times = above.loaded_at, above.expires, above.due_at
                permission = above.permission
            permission = permission or self._prover.wrapped(record)
            loaded_at, expires, due_at = times
            key = self._cache.get(record.key_id)
            if key is None or key.record.state is not record.state:
                key = CachedKey(
                    record,
                    secret,
                    loaded_at=loaded_at,
                    expires=expires,
                    vouched_until=self._lease.until,
                    due_at=due_at,
                    permission=permission,
                )
                self._cache.put(key)
            else:
                key.renew(
                    record,
                    loaded_at=loaded_at,
                    expires=expires,
                    vouched_until=self._lease.until,
                    due_at=due_at,
                    permission=permission,
                )
            if reserved:
                key.grant(reserved)
        return key

    def failed(self, record: KeyRecord, error: Exception) -> Outcome:
        """What serves in place of a key that was not unwrapped: in an outage an expired copy, else the error.

        A key that was refused is forgotten, and so is what it wraps.
        """
        if isinstance(error, KMSUnavailable):
            key = self._cache.get(record.key_id)
            if key is not None:
                self._prover.unavailable(key.permission)
            return self.outlast(key, error)
        self._cache.discard(record.key_id)
        return error

    def outlast(self, key: CachedKey | None, outage: Exception) -> Outcome:
        """An expired key, for a little longer, if all that stands against it is an outage within the grace.

        Else the outage.
        """
        if key is None:
            return outage
        with self._cache.lock:
            now = self._clock()
            is_aged = now >= key.loaded_at + self._policy.ttl
            if not key.evicted and now < key.expires and not (is_aged and self._policy.refresh_ahead):
                return key
            end = key.loaded_at + self._policy.ttl + self._policy.grace
            if key.evicted or now >= end:
                return outage
            if self._policy.refresh_ahead:
                # Somebody has waited for it; from now on it is asked for in the background.
                key.expires, key.due_at = end, min(now + _STALE_PAUSE, end)
            else:
                key.expires, key.due_at = min(now + _STALE_PAUSE, end), inf
            return key

    def _outlasts_known(self, key: CachedKey) -> bool:
        """Whether an expired key serves on, as the KMS is known to be out for its root key."""
        if not (self._policy.refresh_ahead and self._prover.knows_out(key.permission)):
            return False
        return isinstance(self.outlast(key, KMSUnavailable("the KMS is out")), CachedKey)

    def _cached(self, key_id: bytes) -> CachedKey | None:
        key = self._cache.get(key_id)
        return key if key is not None and self.usable(key) else None

    def _above(
        self, wrapped: Sequence[KeyRecord], snapshot: Snapshot, *, anew: bool
    ) -> dict[bytes, Outcome | None]:
        """The tenants' keys among these records, and the wrap keys of the others: one call of the KMS."""
        found: dict[bytes, Outcome | None] = {}
        asked: dict[_Wrapped, KeyRecord] = {}
        for record in wrapped:
            if record.parent is None:
                top = record
            else:
                top = snapshot.records[record.parent]
                cached = self._cached(record.parent)
                if cached is not None and not (anew and cached.due_at <= self._clock()):
                    found[record.parent] = cached
                    continue
            asked[top.key_id, top.slot, top.wrapped] = top
        answers = self._flight.run(asked, partial(self._unwrap, asked))
        for each, record in asked.items():
            answer = answers[each]
            found[record.key_id] = (
                self.keep(record, answer.secret, snapshot, permission=answer.permission)
                if isinstance(answer, _Unwrapped)
                else self.failed(record, answer)
            )
        return found

    def _unwrap(
        self, asked: Mapping[_Wrapped, KeyRecord], mine: Sequence[_Wrapped]
    ) -> dict[_Wrapped, _Unwrapped | Exception]:
        asked_at = self._clock()
        answers = unwrap_records(self._kms, [asked[each] for each in mine])
        outcome: dict[_Wrapped, _Unwrapped | Exception] = {}
        for each in mine:
            answer = answers[asked[each].key_id]
            if isinstance(answer, Secret):
                outcome[each] = _Unwrapped(answer, self._prover.unwrapped(asked[each], asked_at))
            else:
                outcome[each] = answer
        return outcome

    def _open(
        self, wrapper: LocalWrapper, record: KeyRecord, snapshot: Snapshot, above: CachedKey
    ) -> Outcome | None:
        try:
            secret = wrapper.open(record)
        except KMSError as error:
            return self.failed(record, error)
        return self.keep(record, secret, snapshot, above=above)


def _unusable(snapshot: Snapshot, key_id: bytes) -> FieldVaultError | None:
    """Why a key, or the wrap key above it, cannot serve; None if it can."""
    record = snapshot.records.get(key_id)
    if record is None:
        return KeyNotFound(f"the key store has no key {key_id.hex()}: it is another store's, or it was lost")
    if record.parent is not None and record.parent not in snapshot.records:
        return KeyNotFound(
            f"the key store has no key {record.parent.hex()}, which wraps the key {key_id.hex()}"
        )
    for each in (record, None if record.parent is None else snapshot.records[record.parent]):
        if each is not None and each.state is KeyState.DESTROYED:
            return KeyShredded(
                f"the key {key_id.hex()} was destroyed: what it sealed can never be read again"
            )
        if each is not None and each.wrapped is None:
            return KeyStoreError(
                f"the key store is damaged: the key {each.key_id.hex()} is {each.state}, "
                "and its wrapped form is gone"
            )
        if each is not None and each.state is KeyState.SUSPENDED:
            return KeySuspended(f"the key {key_id.hex()} is suspended: reinstate it to read what it sealed")
    return None
