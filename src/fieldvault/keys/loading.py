"""Loading.

From slots and key ids to unwrapped keys in the cache, in batches, each key by one caller at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from fieldvault.errors import (
    FieldVaultError,
    KeyNotFound,
    KeyShredded,
    KeyStoreError,
    KeySuspended,
    KMSError,
    KMSUnavailable,
)
from fieldvault.keys.cache import CachedKey, KeyCache
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.lease import Lease
from fieldvault.keys.material import LocalWrapper, new_record, unwrap_records
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, Addition, KeyStore
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose, Snapshot
from fieldvault.secret import Secret

__all__ = ["ROUNDS", "KeyLoader", "active_of"]

ROUNDS = 10
"""Rounds that a caller plays against other processes before it calls the key store broken.

Each round lost is one that another won.
"""

_STALE_PAUSE = 5.0
"""Seconds that an expired key serves, within the grace, before the unavailable KMS or key store is asked for
it again.
"""

Outcome = CachedKey | Exception

K = TypeVar("K")


class KeyLoader:
    """Fetches, unwraps and makes keys, and puts them into the cache.

    A batch costs one read of the key store and at most one call of the KMS. Nothing here holds a lock over
    input or output.
    """

    def __init__(
        self,
        kms: KMS,
        store: KeyStore,
        cache: KeyCache,
        lease: Lease,
        *,
        policy: CachePolicy,
        rotation: RotationPolicy,
        clock: Clock,
    ) -> None:
        self._kms = kms
        self._store = store
        self._cache = cache
        self._lease = lease
        self._policy = policy
        self._block = rotation.block
        self._clock = clock
        self._slots: SingleFlight[KeySlot, CachedKey] = SingleFlight()
        self._ids: SingleFlight[bytes, CachedKey] = SingleFlight()
        self._unwraps: SingleFlight[bytes, Secret] = SingleFlight()

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        for flight in (self._slots, self._ids, self._unwraps):
            flight.reset()

    def usable(self, key: CachedKey) -> bool:
        """Whether a cached key may serve now, the lease being looked after first."""
        self._lease.ensure()
        return not key.evicted and self._clock() < key.expires

    def by_id(self, key_ids: Iterable[bytes]) -> dict[bytes, Outcome]:
        """Each key, or the error that it met."""
        return self._ids.run(key_ids, self._load_ids)

    def active(self, slots: Iterable[KeySlot]) -> dict[KeySlot, Outcome]:
        """Each slot's active key, made first where there is none, or the error that it met."""
        wanted = list(dict.fromkeys(slots))
        # Subjects' slots wait for their tenants' wrap slots, so those never share a flight.
        own = [slot for slot in wanted if slot.subject is None]
        outcome = self._slots.run(own, self._load_slots)
        outcome.update(
            self._slots.run([slot for slot in wanted if slot.subject is not None], self._load_slots)
        )
        return outcome

    def _cached(self, found: Mapping[K, CachedKey | None]) -> dict[K, Outcome]:
        return {name: key for name, key in found.items() if key is not None and self.usable(key)}

    def make(self, slot: KeySlot, snapshot: Snapshot) -> tuple[KeyRecord, Secret]:
        """The slot's next key, active, with a block reserved for this process; not stored yet.

        Raises:
            KeyShredded, KeySuspended, KMSError, KeyStoreError: the key that wraps it is not to be had.
        """
        version = 1 + max(
            (record.version for record in snapshot.records.values() if record.slot == slot), default=0
        )
        if slot.subject is None:
            return new_record(slot, version, self._kms, uses=self._block)
        wrap_slot = KeySlot(slot.tenant, None, Purpose.WRAP)
        wrap_key = self.active([wrap_slot])[wrap_slot]
        if isinstance(wrap_key, Exception):
            raise wrap_key
        return new_record(
            slot, version, LocalWrapper(wrap_key.secret, wrap_key.record.key_id), uses=self._block
        )

    def keep(
        self, record: KeyRecord, secret: Secret, snapshot: Snapshot, *, reserved: int = 0
    ) -> CachedKey | None:
        """Put a key into the cache.

        ``None``, and nothing done, if scopes were touched since the snapshot that vouches for it.
        """
        key = CachedKey(record, secret, loaded_at=self._clock(), ttl=self._policy.ttl)
        with self._cache.lock:
            if snapshot.generation != self._lease.generation:
                return None
            self._cache.put(key)
            if reserved:
                key.grant(reserved)
        return key

    # -- by slot --------------------------------------------------------------------------------------------

    def _load_slots(self, slots: list[KeySlot]) -> Mapping[KeySlot, Outcome]:
        # Looked up by the leader of the flight, so that nobody loads again what a flight brought that has
        # just landed.
        outcome = self._cached({slot: self._cache.active(slot) for slot in slots})
        for _ in range(ROUNDS):
            waiting = [slot for slot in slots if slot not in outcome]
            if not waiting:
                return outcome
            asked_at = self._clock()
            try:
                snapshot = self._store.current(waiting)
            except KeyStoreError as error:
                return outcome | {slot: self._stale(self._cache.active(slot), error) for slot in waiting}
            self._lease.observe(snapshot.generation, asked_at)
            found = {slot: active_of(snapshot, slot) for slot in waiting}
            opened = self._admit(snapshot, [record.key_id for record in found.values() if record is not None])
            absent: list[KeySlot] = []
            for slot, record in found.items():
                if record is not None:
                    answer = opened[record.key_id]
                    if answer is not None:
                        outcome[slot] = answer
                elif _is_suspended(snapshot, slot):
                    outcome[slot] = KeySuspended(
                        f"the key of tenant {slot.tenant!r} is suspended: reinstate it, or rotate"
                    )
                else:
                    absent.append(slot)
            outcome.update(self._create(absent, snapshot))
        raise KeyStoreError("the active keys change faster than they can be read")

    def _create(self, slots: Sequence[KeySlot], snapshot: Snapshot) -> dict[KeySlot, Outcome]:
        """First keys for slots without one.

        A slot that another process was first in is missing from the answer: read again.
        """
        outcome: dict[KeySlot, Outcome] = {}
        self.active({KeySlot(slot.tenant, None, Purpose.WRAP) for slot in slots if slot.subject is not None})
        made: dict[Addition, Secret] = {}
        for slot in slots:
            try:
                record, secret = self.make(slot, snapshot)
            except FieldVaultError as error:
                outcome[slot] = error
            else:
                made[Addition(record, None)] = secret
        for addition in self._add(list(made), outcome):
            key = self.keep(addition.record, made[addition], snapshot, reserved=self._block)
            if key is not None:
                outcome[addition.record.slot] = key
        return outcome

    def _add(self, additions: list[Addition], outcome: dict[KeySlot, Outcome]) -> Iterable[Addition]:
        """Those additions that became active; a fenced scope's refusal goes to ``outcome``."""
        if not additions:
            return []
        try:
            accepted = self._store.add_active(additions)
        except KeyShredded as error:
            if len(additions) == 1:
                outcome[additions[0].record.slot] = error
                return []
        else:
            return [addition for addition in additions if addition.record.key_id in accepted]
        # One fenced scope refuses the whole step; alone, each stands for itself.
        return [added for addition in additions for added in self._add([addition], outcome)]

    # -- by id ----------------------------------------------------------------------------------------------

    def _load_ids(self, key_ids: list[bytes]) -> Mapping[bytes, Outcome]:
        outcome = self._cached({key_id: self._cache.get(key_id) for key_id in key_ids})
        for _ in range(ROUNDS):
            waiting = [key_id for key_id in key_ids if key_id not in outcome]
            if not waiting:
                return outcome
            asked_at = self._clock()
            try:
                snapshot = self._store.fetch(waiting)
            except KeyStoreError as error:
                return outcome | {key_id: self._stale(self._cache.get(key_id), error) for key_id in waiting}
            self._lease.observe(snapshot.generation, asked_at)
            answers = self._admit(snapshot, waiting)
            outcome.update((key_id, answer) for key_id, answer in answers.items() if answer is not None)
        raise KeyStoreError("the states of the keys change faster than they can be read")

    def _admit(self, snapshot: Snapshot, key_ids: Sequence[bytes]) -> dict[bytes, Outcome | None]:
        """Unwrap what a snapshot holds, into the cache.

        ``None`` for a key whose scope may have been touched meanwhile: read again.
        """
        outcome: dict[bytes, Outcome | None] = {key_id: _unusable(snapshot, key_id) for key_id in key_ids}
        records: list[KeyRecord] = []
        for key_id in key_ids:
            if outcome[key_id] is None:
                cached = self._cache.get(key_id)
                if (
                    cached is not None
                    and cached.record.state is snapshot.records[key_id].state
                    and self.usable(cached)
                ):
                    outcome[key_id] = cached
                else:
                    records.append(snapshot.records[key_id])
        for record, secret in zip(records, self._unwrap(records, snapshot), strict=True):
            if isinstance(secret, Secret):
                outcome[record.key_id] = self.keep(record, secret, snapshot)
            else:
                outcome[record.key_id] = self._stale(self._cache.get(record.key_id), secret)
        return outcome

    def _unwrap(self, records: Sequence[KeyRecord], snapshot: Snapshot) -> list[Secret | Exception]:
        """The keys of these records.

        Tenants' by the KMS, all in one call; subjects' under their tenant's wrap key.
        """
        top: dict[bytes, KeyRecord] = {}
        secrets: dict[bytes, Secret | Exception] = {}
        for record in records:
            if record.parent is None:
                top[record.key_id] = record
                continue
            cached = self._cache.get(record.parent)
            if cached is not None and self.usable(cached):
                secrets[record.parent] = cached.secret
            else:
                top[record.parent] = snapshot.records[record.parent]
        secrets.update(
            self._unwraps.run(top, lambda mine: unwrap_records(self._kms, [top[key_id] for key_id in mine]))
        )
        wrappers: dict[bytes, LocalWrapper] = {}
        for key_id, secret in secrets.items():
            if key_id in top and top[key_id].purpose is Purpose.WRAP and isinstance(secret, Secret):
                self.keep(top[key_id], secret, snapshot)
            if isinstance(secret, Secret):
                wrappers[key_id] = LocalWrapper(secret, key_id)
        answers: list[Secret | Exception] = []
        for record in records:
            if record.parent is None or record.parent not in wrappers:
                answers.append(secrets[record.parent or record.key_id])
                continue
            try:
                answers.append(wrappers[record.parent].open(record))
            except KMSError as error:
                answers.append(error)
        return answers

    def _stale(self, key: CachedKey | None, error: Exception) -> Outcome:
        """An expired key, for a little longer, if all that stands against it is an outage within the grace.

        Else the error.
        """
        if key is None:
            return error
        with self._cache.lock:
            end = key.loaded_at + self._policy.ttl + self._policy.grace
            now = self._clock()
            if isinstance(error, KMSUnavailable | KeyStoreError) and now < end and not key.evicted:
                key.expires = min(now + _STALE_PAUSE, end)
                return key
            self._cache.discard(key.record.key_id)
        return error


def active_of(snapshot: Snapshot, slot: KeySlot) -> KeyRecord | None:
    """The slot's active key in a snapshot."""
    for record in snapshot.records.values():
        if record.state is KeyState.ACTIVE and record.slot == slot:
            return record
    return None


def _is_suspended(snapshot: Snapshot, slot: KeySlot) -> bool:
    return any(
        record.state is KeyState.SUSPENDED and record.slot == slot for record in snapshot.records.values()
    )


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
        if each is not None and (each.state is KeyState.DESTROYED or each.wrapped is None):
            return KeyShredded(
                f"the key {key_id.hex()} was destroyed: what it sealed can never be read again"
            )
        if each is not None and each.state is KeyState.SUSPENDED:
            return KeySuspended(f"the key {key_id.hex()} is suspended: reinstate it to read what it sealed")
    return None
