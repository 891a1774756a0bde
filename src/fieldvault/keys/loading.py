"""Loading.

From slots and key ids to unwrapped keys in the cache, in batches, each key by one caller at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from fieldvault.errors import KeyNotFound, KeyShredded, KeyStoreError, KeySuspended
from fieldvault.keys.cache import KeyCache
from fieldvault.keys.cached import CachedKey
from fieldvault.keys.clock import Clock
from fieldvault.keys.flight import SingleFlight
from fieldvault.keys.lease import Lease
from fieldvault.keys.making import KeyMaker
from fieldvault.keys.policy import CachePolicy, RotationPolicy
from fieldvault.keys.protocols import KMS, KeyStore
from fieldvault.keys.proving import Prover
from fieldvault.keys.records import KeyInfo, KeyRecord, KeySlot, KeyState, Snapshot
from fieldvault.keys.stats import Meter
from fieldvault.keys.unwrapping import Outcome, Unwrapper

__all__ = ["ROUNDS", "KeyLoader"]

ROUNDS = 10
"""Rounds that a caller plays against other processes before it calls the key store broken.

Each round lost is one that another won.
"""

K = TypeVar("K", KeySlot, bytes)


class KeyLoader:
    """Fetches, unwraps, makes and replaces keys, and puts them into the cache.

    A batch costs one read of the key store and at most one call of the KMS. Nothing here holds a lock over
    input or output.
    """

    def __init__(
        self,
        kms: KMS,
        store: KeyStore,
        cache: KeyCache,
        lease: Lease,
        prover: Prover,
        *,
        policy: CachePolicy,
        rotation: RotationPolicy,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._store = store
        self._meter = meter
        self._cache = cache
        self._lease = lease
        self._prover = prover
        self._unwrapper = Unwrapper(kms, cache, lease, prover, policy=policy, clock=clock)
        self._maker = KeyMaker(kms, store, lease, self._unwrapper, block=rotation.block, active=self.active)
        self._slots: SingleFlight[KeySlot, CachedKey] = SingleFlight()
        self._ids: SingleFlight[bytes, CachedKey] = SingleFlight()
        self._successions: SingleFlight[bytes, bool] = SingleFlight()

    def after_fork(self) -> None:
        """In a child: flights of the parent's threads never land."""
        self._unwrapper.after_fork()
        for flight in (self._slots, self._ids, self._successions):
            flight.reset()

    def by_id(self, key_ids: Iterable[bytes]) -> dict[bytes, Outcome]:
        """Each key, or the error that it met."""
        outcome: dict[bytes, Outcome] = {}
        asked: list[bytes] = []
        for key_id in key_ids:
            why = self._cache.destroyed(key_id)
            if why is None:
                asked.append(key_id)
            else:
                outcome[key_id] = KeyShredded(why)
        answers = self._ids.run(asked, self._load_ids)
        for key_id, answer in answers.items():
            if isinstance(answer, KeyShredded):
                self._cache.note_destroyed(key_id, str(answer))
        return outcome | answers

    def renew(self, key_ids: Sequence[bytes]) -> None:
        """Have the KMS answer for cached keys anew: one read of the key store, one call of the KMS.

        A key that is refused is forgotten; while the KMS cannot be reached they stay as they are.

        Raises:
            KeyStoreError: the key store cannot be reached.
        """
        ends = {key_id: key.expires for key_id in key_ids if (key := self._cache.get(key_id)) is not None}
        answers = self._unwrapper.admit(self._fetch(list(ends)), ends, anew=True)
        renewed = [
            key_id
            for key_id, key in answers.items()
            if isinstance(key, CachedKey) and key.expires > ends[key_id]
        ]
        self._meter.refreshed(len(renewed))

    def active(self, slots: Iterable[KeySlot]) -> dict[KeySlot, Outcome]:
        """Each slot's active key, made first where there is none, or the error that it met."""
        wanted = list(slots)
        # Subjects' slots wait for their tenants' wrap slots, so those never share a flight.
        own = [slot for slot in wanted if slot.subject is None]
        subjects = [slot for slot in wanted if slot.subject is not None]
        return self._slots.run(own, self._load_slots) | self._slots.run(subjects, self._load_slots)

    def rotate(self, slot: KeySlot) -> KeyRecord:
        """A new active key for the slot; the former one is retired and still opens what it sealed.

        A tenant all of whose data is its subjects' gets a first key of its own.

        Raises:
            KeyNotFound: there is no such tenant, or no such subject.
            KeyShredded: the scope was shredded.
            KMSError, KeyStoreError: a backend failed.
        """
        for _ in range(ROUNDS):
            snapshot = self._current([slot])
            if not any(record.slot == slot for record in snapshot.records.values()):
                if not self._store.keys(slot.tenant, None):
                    raise KeyNotFound(f"there is no tenant {slot.tenant!r} in the key store")
                if slot.subject is not None:
                    raise KeyNotFound(
                        f"subject {slot.subject!r} of tenant {slot.tenant!r} has no key to rotate"
                    )
            active = _active_of(snapshot, slot)
            record = self._maker.successor(slot, None if active is None else active.key_id, snapshot)
            if record is not None:
                return record
        raise KeyStoreError(
            f"the active key of tenant {slot.tenant!r} changes faster than it can be replaced"
        )

    def replace(self, key: KeyInfo) -> KeyRecord | None:
        """The key that takes over from an active one; ``None`` if that is not active any more.

        Raises:
            KeyShredded, KeySuspended, KMSError, KeyStoreError: as ``rotate``.
        """
        slot = KeySlot(key.tenant, key.subject, key.purpose)
        snapshot = self._active_still(slot, key.key_id)
        return None if snapshot is None else self._maker.successor(slot, key.key_id, snapshot)

    def supersede(self, record: KeyRecord) -> None:
        """Rotate away from a key that may seal no more, unless somebody has done so already.

        Raises:
            KeyShredded, KMSError, KeyStoreError: as ``rotate``.
        """
        outcome = self._successions.run([record.key_id], lambda _: {record.key_id: self._succeed(record)})
        problem = outcome[record.key_id]
        if isinstance(problem, Exception):
            raise problem

    def _succeed(self, record: KeyRecord) -> bool:
        snapshot = self._active_still(record.slot, record.key_id)
        if snapshot is None:
            return False
        self._meter.missed(1)
        return self._maker.successor(record.slot, record.key_id, snapshot) is not None

    def _active_still(self, slot: KeySlot, key_id: bytes) -> Snapshot | None:
        """What the key store says of a slot, if this key is its active one."""
        snapshot = self._current([slot])
        active = _active_of(snapshot, slot)
        return snapshot if active is not None and active.key_id == key_id else None

    def _current(self, slots: list[KeySlot]) -> Snapshot:
        reading = self._lease.begin()
        snapshot = self._store.current(slots)
        self._lease.observe(snapshot.generation, reading)
        return snapshot

    def _fetch(self, key_ids: list[bytes]) -> Snapshot:
        reading = self._lease.begin()
        snapshot = self._store.fetch(key_ids)
        self._lease.observe(snapshot.generation, reading)
        return snapshot

    def _load_slots(self, slots: list[KeySlot]) -> Mapping[KeySlot, Outcome]:
        return self._load(slots, self._cache.active, self._slots_round)

    def _load_ids(self, key_ids: list[bytes]) -> Mapping[bytes, Outcome]:
        return self._load(key_ids, self._cache.get, self._ids_round)

    def _load(
        self,
        wanted: list[K],
        cached: Callable[[K], CachedKey | None],
        play: Callable[[list[K]], Mapping[K, Outcome | None]],
    ) -> dict[K, Outcome]:
        """Rounds of reading and unwrapping, until everything is answered for."""
        found: dict[K, CachedKey] = {}
        for each in wanted:
            # Looked up by the leader of the flight, so that nobody loads again what a flight brought that
            # has just landed.
            key = cached(each)
            if key is not None and self._unwrapper.usable(key):
                found[each] = key
        self._prover.ensure(found.values())
        outcome: dict[K, Outcome] = {each: key for each, key in found.items() if not key.evicted}
        if len(outcome) < len(wanted):
            self._meter.missed(len(wanted) - len(outcome))
        for _ in range(ROUNDS):
            waiting = [each for each in wanted if each not in outcome]
            if not waiting:
                return outcome
            try:
                answers = play(waiting)
            except KeyStoreError as error:
                return outcome | {each: self._unwrapper.outlast(cached(each), error) for each in waiting}
            outcome.update((each, answer) for each, answer in answers.items() if answer is not None)
        raise KeyStoreError("the keys change faster than they can be read")

    def _ids_round(self, key_ids: list[bytes]) -> Mapping[bytes, Outcome | None]:
        return self._unwrapper.admit(self._fetch(key_ids), key_ids)

    def _slots_round(self, slots: list[KeySlot]) -> Mapping[KeySlot, Outcome | None]:
        snapshot = self._current(slots)
        found = _slots_in(snapshot, KeyState.ACTIVE)
        active = {slot: found.get(slot) for slot in slots}
        suspended = _slots_in(snapshot, KeyState.SUSPENDED)
        opened = self._unwrapper.admit(snapshot, [record.key_id for record in active.values() if record])
        outcome: dict[KeySlot, Outcome | None] = {}
        absent: list[KeySlot] = []
        for slot, record in active.items():
            if record is not None:
                outcome[slot] = opened[record.key_id]
            elif slot in suspended:
                outcome[slot] = KeySuspended(
                    f"the key of tenant {slot.tenant!r} is suspended: reinstate it, or rotate"
                )
            else:
                absent.append(slot)
        return outcome | self._maker.first(absent, snapshot)


def _active_of(snapshot: Snapshot, slot: KeySlot) -> KeyRecord | None:
    return _slots_in(snapshot, KeyState.ACTIVE).get(slot)


def _slots_in(snapshot: Snapshot, state: KeyState) -> dict[KeySlot, KeyRecord]:
    """The keys in a state by their slots; of one that has several in it, one of them."""
    return {record.slot: record for record in snapshot.records.values() if record.state is state}
