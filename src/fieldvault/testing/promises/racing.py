"""Races between processes: whoever else is writing, a shred, a state and a fence stay what they became."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, cycle, takewhile

import pytest

from fieldvault.errors import KeyShredded, KeyStoreError
from fieldvault.keys.protocols import KeyStore, Portable
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose, Snapshot
from fieldvault.testing.samples import acme, add, fence, first_key, record, successor, together

__all__ = ["RacingPromises"]

_TURNS, _SECONDS = 4, 0.25
_WRITES = 6

_Write = Callable[[KeyStore, KeyRecord], object]
_Look = Callable[[KeyStore, Sequence[KeyRecord]], Snapshot]


def _suspend(store: KeyStore, key: KeyRecord) -> bool:
    return store.transition(key.key_id, expect=KeyState.ACTIVE, to=KeyState.SUSPENDED)


def _shred(store: KeyStore, key: KeyRecord) -> Sequence[bytes]:
    return store.shred(fence(key.tenant, key.subject))


def _rewrap(store: KeyStore, key: KeyRecord) -> bool:
    assert key.wrapped is not None
    return store.rewrap(key.key_id, expect=key.wrapped, wrapped=b"again")


def _reserve(store: KeyStore, key: KeyRecord) -> int:
    return store.reserve([key.key_id], 5, limit=100).get(key.key_id, 0)


def _turns() -> Iterator[int]:
    """Some, and as many as there is time for: a race that was won says little."""
    end = time.monotonic() + _SECONDS
    return takewhile(lambda turn: turn < _TURNS or time.monotonic() < end, count())


def _unless_shredded(call: Callable[[], object]) -> None:
    with suppress(KeyShredded):
        call()


_WRITERS: dict[str, _Write] = {"shred": _shred, "transition": _suspend, "rotation": successor}
_LOOKS: dict[str, _Look] = {
    "fetch": lambda store, keys: store.fetch([key.key_id for key in keys]),
    "current": lambda store, keys: store.current([key.slot for key in keys]),
}


class RacingPromises:
    """Several processes, each in the midst of something."""

    def test_nothing_undoes_a_shred(self, handles: Sequence[KeyStore]) -> None:
        """Not what others read before it and write after it: wrapped forms, uses, states, new keys."""
        for turn in _turns():
            slot = KeySlot(f"tenant {turn}", "ann" if turn % 2 else None)
            key = first_key(handles[0], slot)
            other = record(KeySlot(slot.tenant, slot.subject, Purpose.INDEX))
            racing: list[Callable[[], object]] = [
                *(
                    partial(each, handle, key)
                    for each, handle in zip(
                        (_shred, _rewrap, _reserve, _suspend), cycle(handles), strict=False
                    )
                ),
                partial(_unless_shredded, partial(add, handles[1], record(slot, 2), key)),
                partial(_unless_shredded, partial(add, handles[2], other)),
            ]
            together(racing)
            left = handles[0].keys(slot.tenant, slot.subject)
            assert {(each.state, each.wrapped) for each in left} == {(KeyState.DESTROYED, None)}
            for purpose in Purpose:
                with pytest.raises(KeyShredded):
                    add(handles[1], record(KeySlot(slot.tenant, slot.subject, purpose), 9))

    @pytest.mark.parametrize("ending", [KeyState.SUSPENDED, KeyState.RETIRED])
    def test_a_rewrap_and_a_reservation_undo_no_change_of_state(
        self, handles: Sequence[KeyStore], ending: KeyState
    ) -> None:
        """Nor does the change undo them: each that was told to have happened did."""
        for turn in _turns():
            key = first_key(handles[0], acme(f"subject {turn}"))
            change = _suspend if ending is KeyState.SUSPENDED else successor
            writes: Sequence[_Write] = (change, _rewrap, _reserve)
            racing = zip(writes, cycle(handles), strict=False)
            calls = [partial(each, handle, key) for each, handle in racing]
            _, rewrapped, uses = together(calls)
            found = handles[0].fetch([key.key_id]).records[key.key_id]
            assert (found.state, found.uses) == (ending, uses)
            assert rewrapped is True
            assert found.wrapped == b"again"

    @pytest.mark.parametrize("writer", _WRITERS)
    def test_a_snapshot_is_never_older_than_its_generation(
        self, store: KeyStore, handles: Sequence[KeyStore], writer: str
    ) -> None:
        """Whoever caches what a read showed may trust it as far as the generation that came with it.

        Whichever read it was, and whatever made stale what was there before.
        """
        keys = [first_key(store, acme(f"subject {number}")) for number in range(_WRITES)]
        start, reading, done = store.generation(), threading.Barrier(1 + len(_LOOKS)), threading.Event()

        def write() -> None:
            reading.wait(timeout=60)
            try:
                for key in keys:
                    _WRITERS[writer](store, key)
            finally:
                done.set()

        def read(handle: KeyStore, look: _Look) -> None:
            look(handle, keys)
            reading.wait(timeout=60)
            while not done.is_set():
                seen = look(handle, keys)
                news = sum(seen.records.get(key.key_id) != key for key in keys)
                assert news >= seen.generation - start

        reads: list[Callable[[], None]] = [partial(read, handles[1], look) for look in _LOOKS.values()]
        together([write, *reads])

    def test_each_process_sees_what_the_others_wrote(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """At once, though it looked before."""
        key = first_key(store, acme())
        writes: Sequence[tuple[_Write, int]] = (
            (_reserve, 0),
            (_rewrap, 0),
            (_suspend, 1),
            (_reinstate, 1),
            (_shred, 1),
        )
        for write, raised in writes:
            before, generation = _looked(elsewhere, key), elsewhere.generation()
            write(store, key)
            seen = _looked(elsewhere, key)
            assert all(each != before[0] for each in seen)
            assert all(each == seen[0] for each in seen)
            assert elsewhere.generation() - generation == raised
            assert len(elsewhere.changes(generation) or ()) == raised
        assert elsewhere.fence("acme", None) is not None

    def test_a_copy_serves_at_its_generation_from_the_first(
        self, store: KeyStore, handles: Sequence[KeyStore]
    ) -> None:
        """Nobody sees it open and younger than the store that it was copied from."""
        if not isinstance(store, Portable):
            pytest.skip("the store cannot be copied")
        token = store.begin_copy()
        assert token is not None
        key = record(acme())
        store.take_over([key], [], token=token)
        done = threading.Event()

        def read(handle: KeyStore) -> int:
            while not done.is_set():
                try:
                    return handle.generation()
                except KeyStoreError:
                    continue
            return handle.generation()

        def finish() -> int:
            try:
                store.finish_copy(token=token, generation=42, lease=0)
            finally:
                done.set()
            return store.fetch([key.key_id]).generation

        racing: list[Callable[[], int]] = [finish, *[partial(read, handle) for handle in handles[1:]]]
        reached = together(racing)
        assert min(reached) >= 42


def _reinstate(store: KeyStore, key: KeyRecord) -> bool:
    return store.transition(key.key_id, expect=KeyState.SUSPENDED, to=KeyState.ACTIVE)


def _looked(store: KeyStore, key: KeyRecord) -> list[KeyRecord]:
    """The key, as each of the reads shows it."""
    (listed,) = store.all_keys(key.tenant)
    (of_scope,) = store.keys(key.tenant, key.subject)
    return [
        store.fetch([key.key_id]).records[key.key_id],
        store.current([key.slot]).records[key.key_id],
        of_scope,
        listed,
    ]
