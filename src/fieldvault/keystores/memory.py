"""A key store in this process's memory."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from fieldvault.errors import KeyShredded, MovedAway, UnfinishedCopy
from fieldvault.forks import in_forked_children
from fieldvault.keys.protocols import Addition
from fieldvault.keys.records import (
    Change,
    Fence,
    KeyRecord,
    KeySlot,
    KeyState,
    Purpose,
    Snapshot,
    check_transition,
)
from fieldvault.keystores.merging import behind_fence, check_slots, destroyed, locked_out, merged, one_each
from fieldvault.settings import Section

__all__ = ["MemoryKeyStore"]


class MemoryKeyStore:
    """Keeps keys as long as the process lives, for tests and for data that may die with it.

    It is the reference of the ``KeyStore`` protocol: the conformance kit holds every other store to what this
    one does. A forked child has a copy of its own, which sees nothing of what the parent does afterwards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[bytes, KeyRecord] = {}
        self._slots: dict[KeySlot, list[bytes]] = {}
        self._tenants: dict[str, list[KeySlot]] = {}
        self._fences: dict[tuple[str, str | None], Fence] = {}
        self._changes: list[Change] = []
        # What was told before this many changes is not known here: the store is a copy from then on.
        self._forgotten = 0
        self._token: int | None = None
        self._moved: int | None = None
        self._lease = 0.0
        in_forked_children(self, MemoryKeyStore._renew_lock)

    @classmethod
    def from_config(cls, section: Section) -> MemoryKeyStore:
        """An empty store; the section has no members but its type."""
        section.finish()
        return cls()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def generation(self) -> int:
        """See ``KeyStore.generation``."""
        self._require_served()
        return self._reached()

    def changes(self, since: int) -> Sequence[Change] | None:
        """See ``KeyStore.changes``."""
        known_from = max(since, 0) - self._forgotten
        return None if known_from < 0 else self._changes[known_from:]

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        """See ``KeyStore.fetch``."""
        with self._lock:
            return self._snapshot(self._keys[key_id] for key_id in key_ids if key_id in self._keys)

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        """See ``KeyStore.current``."""
        with self._lock:
            found: list[KeyRecord] = []
            for slot in set(slots):
                filling = self._in(slot)
                newest = max((record.version for record in filling), default=0)
                live = (KeyState.ACTIVE, KeyState.SUSPENDED)
                found += [record for record in filling if record.state in live or record.version == newest]
            return self._snapshot(found)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        """See ``KeyStore.add_active``."""
        with self._lock:
            self._require_served()
            for addition in additions:
                if self._fence(addition.record.tenant, addition.record.subject) is not None:
                    raise KeyShredded.of_scope(addition.record.tenant, addition.record.subject)
            accepted: set[bytes] = set()
            for record, replaces in additions:
                filling = self._in(record.slot)
                active = next((other.key_id for other in filling if other.state is KeyState.ACTIVE), None)
                if active != replaces or any(other.version >= record.version for other in filling):
                    continue
                if replaces is not None:
                    self._keys[replaces] = replace(self._keys[replaces], state=KeyState.RETIRED)
                    self._changes.append(Change(record.tenant, record.subject))
                self._put(record)
                accepted.add(record.key_id)
            return accepted

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        """See ``KeyStore.transition``."""
        check_transition(expect, to)
        with self._lock:
            self._require_served()
            record = self._keys.get(key_id)
            if record is None or record.state is not expect:
                return False
            if to is KeyState.ACTIVE and any(
                other.state is KeyState.ACTIVE for other in self._in(record.slot)
            ):
                return False
            wrapped = None if to is KeyState.DESTROYED else record.wrapped
            self._keys[key_id] = replace(record, state=to, wrapped=wrapped)
            self._changes.append(Change(record.tenant, record.subject, whole_tenant=record.subject is None))
            return True

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        """See ``KeyStore.reserve``."""
        with self._lock:
            self._require_served()
            granted: dict[bytes, int] = {}
            for key_id in dict.fromkeys(key_ids):
                record = self._keys.get(key_id)
                if record is not None and record.state is KeyState.ACTIVE and record.uses + uses <= limit:
                    self._keys[key_id] = replace(record, uses=record.uses + uses)
                    granted[key_id] = record.uses + uses
            return granted

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        """See ``KeyStore.rewrap``."""
        with self._lock:
            self._require_served()
            record = self._keys.get(key_id)
            if record is None or record.wrapped != expect:
                return False
            self._keys[key_id] = replace(record, wrapped=wrapped)
            return True

    def shred(self, fence: Fence) -> Sequence[bytes]:
        """See ``KeyStore.shred``."""
        with self._lock:
            self._require_served()
            scope = (fence.tenant, fence.subject)
            own = self._of_scope(*scope)
            doomed = [record for record in own if record.state is not KeyState.DESTROYED]
            if doomed or scope not in self._fences:
                self._changes.append(Change(*scope, whole_tenant=fence.subject is None))
            self._fences.setdefault(scope, fence)
            self._tenants.setdefault(fence.tenant, [])
            for record in doomed:
                self._keys[record.key_id] = replace(record, state=KeyState.DESTROYED, wrapped=None)
            return [record.key_id for record in own]

    def fence(self, tenant: str, subject: str | None) -> Fence | None:
        """See ``KeyStore.fence``."""
        with self._lock:
            return self._fence(tenant, subject)

    def keys(self, tenant: str, subject: str | None) -> Sequence[KeyRecord]:
        """See ``KeyStore.keys``."""
        with self._lock:
            return self._of_scope(tenant, subject)

    def all_keys(self, tenant: str) -> Iterator[KeyRecord]:
        """See ``KeyStore.all_keys``."""
        with self._lock:
            own = [record for slot in self._tenants.get(tenant, ()) for record in self._in(slot)]
        return iter(sorted(own, key=lambda record: (record.subject or "", record.purpose, record.version)))

    def tenants(self) -> Iterator[str]:
        """See ``KeyStore.tenants``."""
        with self._lock:
            return iter(sorted(self._tenants))

    def fences(self) -> Iterator[Fence]:
        """See ``Portable.fences``."""
        with self._lock:
            return iter(list(self._fences.values()))

    def begin_copy(self) -> int | None:
        """See ``Portable.begin_copy``."""
        with self._lock:
            used = self._keys or self._fences or self._forgotten or self._changes or self._moved is not None
            if self._token is None and used:
                return None
            self._token = secrets.randbits(60)
            return self._token

    def take_over(self, records: Sequence[KeyRecord], fences: Sequence[Fence], *, token: int) -> int:
        """See ``Portable.take_over``."""
        with self._lock:
            self._require_copier(token)
            places = {(fence.tenant, fence.subject): fence for fence in fences}
            new = {place: fence for place, fence in places.items() if place not in self._fences}
            fenced = self._fences | new
            changed = {}
            for record in one_each(records).values():
                there = self._keys.get(record.key_id)
                kept = merged(there, behind_fence(record, fenced))
                if kept != there:
                    changed[record.key_id] = kept
            slots = {record.slot for record in changed.values()}
            check_slots(({each.key_id: each for slot in slots for each in self._in(slot)} | changed).values())
            self._fences = fenced
            for tenant, subject in new:
                self._tenants.setdefault(tenant, [])
                for record in self._of_scope(tenant, subject):
                    self._keys[record.key_id] = destroyed(record)
            for record in changed.values():
                self._put(record)
            return len(new) + len(changed)

    def finish_copy(self, *, token: int, generation: int, lease: float) -> None:
        """See ``Portable.finish_copy``."""
        with self._lock:
            self._require_copier(token)
            self._forgotten, self._lease = max(generation, 1), max(self._lease, lease)
            self._token = None

    def give_up_copy(self) -> bool:
        """See ``Portable.give_up_copy``."""
        with self._lock:
            if self._token is None:
                return False
            for each in (self._keys, self._slots, self._tenants):
                each.clear()
            self._fences, self._token = {}, None
            return True

    def move_away(self, *, token: int) -> int:
        """See ``Portable.move_away``."""
        with self._lock:
            if self._token is not None:
                raise UnfinishedCopy
            self._moved = token
            return self._reached()

    def move_back(self, *, token: int | None = None) -> bool:
        """See ``Portable.move_back``."""
        with self._lock:
            if self._moved is None or token not in (None, self._moved):
                return False
            self._moved = None
            return True

    def declare_lease(self, seconds: float) -> float:
        """See ``KeyStore.declare_lease``."""
        with self._lock:
            self._lease = max(self._lease, seconds)
            return self._lease

    def check(self) -> str:
        """See ``KeyStore.check``."""
        self._require_served()
        return f"memory of this process, {len(self._keys)} keys"

    def close(self) -> None:
        """See ``KeyStore.close``; the keys stay as long as the object."""

    def _require_served(self) -> None:
        if self._token is not None:
            raise UnfinishedCopy
        if self._moved is not None:
            raise MovedAway

    def _require_copier(self, token: int) -> None:
        if self._token is None or self._token != token:
            raise locked_out()

    def _reached(self) -> int:
        return self._forgotten + len(self._changes)

    def _put(self, record: KeyRecord) -> None:
        known = record.key_id in self._keys
        self._keys[record.key_id] = record
        if known:
            return
        if record.slot not in self._slots:
            self._slots[record.slot] = []
            self._tenants.setdefault(record.tenant, []).append(record.slot)
        self._slots[record.slot].append(record.key_id)

    def _in(self, slot: KeySlot) -> list[KeyRecord]:
        return [self._keys[key_id] for key_id in self._slots.get(slot, ())]

    def _of_scope(self, tenant: str, subject: str | None) -> list[KeyRecord]:
        return [record for purpose in Purpose for record in self._in(KeySlot(tenant, subject, purpose))]

    def _fence(self, tenant: str, subject: str | None) -> Fence | None:
        return self._fences.get((tenant, subject)) or self._fences.get((tenant, None))

    def _snapshot(self, records: Iterable[KeyRecord]) -> Snapshot:
        found = {record.key_id: record for record in records}
        parents = {record.parent for record in found.values() if record.parent is not None}
        found.update({key_id: self._keys[key_id] for key_id in parents if key_id in self._keys})
        return Snapshot(self.generation(), found)
