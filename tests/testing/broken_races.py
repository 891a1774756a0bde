"""Key stores that go wrong while somebody else writes: by a round trip between what they read and write."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import Fence, KeyRecord, KeySlot, KeyState, Snapshot
from fieldvault.keystores import MemoryKeyStore
from tests.testing.sample_store import SampleStoreConformance

__all__ = ["BROKEN_RACES"]

_TRIP = 0.005
"""Seconds that a round trip takes."""


# -- several processes --------------------------------------------------------------------------------------


class _Process:
    """A process's own handle: what it does not do itself the shared store does."""

    def __init__(self, shared: MemoryKeyStore) -> None:
        self._shared = shared
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)


class _Alone(_Process):
    """Reads, decides and writes under a lock of its own, and others write in between."""

    @contextmanager
    def _step(self) -> Iterator[MemoryKeyStore]:
        with self._lock:
            work, shared = MemoryKeyStore(), self._shared
            with shared._lock:
                work._keys = dict(shared._keys)
                work._slots = {slot: [*filling] for slot, filling in shared._slots.items()}
                work._tenants = {tenant: [*slots] for tenant, slots in shared._tenants.items()}
                work._fences = dict(shared._fences)
            before = dict(work._keys)
            yield work
            time.sleep(_TRIP)
            with shared._lock:
                for key_id, record in work._keys.items():
                    if before.get(key_id) is not record:
                        shared._put(record)
                shared._changes += work._changes
                shared._fences.update(work._fences)

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        with self._step() as work:
            return work.add_active(additions)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        with self._step() as work:
            return work.transition(key_id, expect=expect, to=to)

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        with self._step() as work:
            return work.reserve(key_ids, uses, limit=limit)

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        with self._step() as work:
            return work.rewrap(key_id, expect=expect, wrapped=wrapped)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        with self._step() as work:
            return work.shred(fence)


class AtomicInOneProcessOnly(SampleStoreConformance):
    """The commonest wrong key store: a lock, and no other process knows of it."""

    caught_by = (
        "test_of_many_that_make_a_first_key_at_once_one_wins",
        "test_of_many_that_rotate_at_once_one_wins",
        "test_of_many_that_change_a_state_at_once_one_does",
        "test_of_many_keys_reinstated_at_once_one_becomes_active",
        "test_a_rotation_never_undoes_a_transition",
        "test_many_that_reserve_at_once_never_pass_the_limit",
        "test_of_many_that_rewrap_at_once_one_does",
        "test_no_key_slips_past_a_shred",
        "test_nothing_undoes_a_shred",
        "test_a_rewrap_and_a_reservation_undo_no_change_of_state",
    )

    store_class = MemoryKeyStore

    @pytest.fixture
    def open_store(self, the_store: MemoryKeyStore) -> Callable[[], KeyStore]:
        return partial(_Alone, the_store)


class _Caching(_Process):
    """Keeps what it fetched."""

    def __init__(self, shared: MemoryKeyStore) -> None:
        super().__init__(shared)
        self._cached: dict[bytes, KeyRecord] = {}

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        seen = self._shared.fetch([key_id for key_id in key_ids if key_id not in self._cached])
        cached = {key_id: self._cached[key_id] for key_id in key_ids if key_id in self._cached}
        self._cached.update(seen.records)
        return replace(seen, records={**seen.records, **cached})


class FetchesFromACache(SampleStoreConformance):
    """What another process shredded is still there."""

    caught_by = ("test_each_process_sees_what_the_others_wrote",)

    store_class = MemoryKeyStore

    @pytest.fixture
    def open_store(self, the_store: MemoryKeyStore) -> Callable[[], KeyStore]:
        return partial(_Caching, the_store)


class _InAFile(MemoryKeyStore):
    """Shared by processes, and locked by each of them for its own threads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._guard = threading.RLock()

    @contextmanager
    def _loaded(self) -> Iterator[None]:
        with self._guard:
            if self._path.exists():
                self._keys, self._slots, self._tenants = pickle.loads(self._path.read_bytes())  # noqa: S301 - our own
            yield

    def add_active(self, additions: Sequence[Addition]) -> AbstractSet[bytes]:
        with self._loaded():
            accepted = super().add_active(additions)
            time.sleep(_TRIP)
            written = self._path.with_suffix(f".{os.getpid()}")
            written.write_bytes(pickle.dumps((self._keys, self._slots, self._tenants)))
            written.replace(self._path)
            return accepted

    def keys(self, tenant: str, subject: str | None) -> Sequence[KeyRecord]:
        with self._loaded():
            return super().keys(tenant, subject)


class LocksItsThreadsOnly(SampleStoreConformance):
    """However many objects of a process there are, they wait for one another; other processes do not."""

    caught_by = ("test_of_many_processes_that_make_a_first_key_at_once_one_wins",)

    dies_with_its_process = False

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], KeyStore]:
        store = _InAFile(tmp_path / "keys")
        return lambda: store


# -- whole records written back -----------------------------------------------------------------------------


class RewrapRevives(MemoryKeyStore):
    """A rewrap is a compare-and-set among rewraps, and writes back whatever it had read."""

    caught_by = (
        "test_nothing_undoes_a_shred",
        "test_a_rewrap_and_a_reservation_undo_no_change_of_state",
    )

    def rewrap(self, key_id: bytes, *, expect: bytes, wrapped: bytes) -> bool:
        there = self._keys[key_id]
        if there.wrapped != expect:
            return False
        time.sleep(_TRIP)
        self._keys[key_id] = replace(there, wrapped=wrapped)
        return True


class ReserveRevives(MemoryKeyStore):
    """So does a reservation."""

    caught_by = (
        "test_nothing_undoes_a_shred",
        "test_a_rewrap_and_a_reservation_undo_no_change_of_state",
    )

    def reserve(self, key_ids: Sequence[bytes], uses: int, *, limit: int) -> Mapping[bytes, int]:
        seen = {key_id: self._keys[key_id] for key_id in key_ids if key_id in self._keys}
        granted = super().reserve(key_ids, uses, limit=limit)
        time.sleep(_TRIP)
        for key_id, total in granted.items():
            self._keys[key_id] = replace(seen[key_id], uses=total)
        return granted


# -- the generation and what it stands for ------------------------------------------------------------------


class FetchReadsTheGenerationLast(MemoryKeyStore):
    """What a fetch shows is older than the generation that it comes with."""

    caught_by = ("test_a_snapshot_is_never_older_than_its_generation",)

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        seen = super().fetch(key_ids)
        time.sleep(_TRIP)
        return replace(seen, generation=self.generation())

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        time.sleep(_TRIP / 2)
        return super().transition(key_id, expect=expect, to=to)


class TransitionRaisesTheGenerationFirst(MemoryKeyStore):
    """Whoever reads in between caches the old state as if it were the new one."""

    caught_by = ("test_a_snapshot_is_never_older_than_its_generation",)

    def transition(self, key_id: bytes, *, expect: KeyState, to: KeyState) -> bool:
        there = self._keys[key_id]
        return super().transition(key_id, expect=expect, to=to) and _late(self, there)


class ShredRaisesTheGenerationFirst(MemoryKeyStore):
    """Whoever reads in between caches a live key, and no lease notices the shred."""

    caught_by = ("test_a_snapshot_is_never_older_than_its_generation",)

    def shred(self, fence: Fence) -> Sequence[bytes]:
        there = self.keys(fence.tenant, fence.subject)
        answer = super().shred(fence)
        for each in there:
            _late(self, each)
        return answer


def _late(store: MemoryKeyStore, before: KeyRecord) -> bool:
    """Have what happened to a record happen after a round trip."""
    after, store._keys[before.key_id] = store._keys[before.key_id], before
    time.sleep(_TRIP)
    store._keys[before.key_id] = after
    return True


class FetchSaysZero(MemoryKeyStore):
    """A fetch comes without its generation."""

    caught_by = ("test_every_read_comes_with_the_generation",)

    def fetch(self, key_ids: Sequence[bytes]) -> Snapshot:
        return replace(super().fetch(key_ids), generation=0)


class CurrentSaysZero(MemoryKeyStore):
    """So does a look at slots."""

    caught_by = ("test_every_read_comes_with_the_generation",)

    def current(self, slots: Sequence[KeySlot]) -> Snapshot:
        return replace(super().current(slots), generation=0)


class OpensTooSoon(MemoryKeyStore):
    """A copy serves, and its generation comes a round trip later."""

    caught_by = ("test_a_copy_serves_at_its_generation_from_the_first",)

    def finish_copy(self, *, token: int, generation: int, lease: float) -> None:
        super().finish_copy(token=token, generation=1, lease=0)
        time.sleep(_TRIP)
        self._forgotten, self._lease = generation, lease


BROKEN_RACES: list[Any] = [
    each for each in dict(vars()).values() if isinstance(each, type) and "caught_by" in vars(each)
]
