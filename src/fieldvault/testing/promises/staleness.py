"""The generation: it grows with what makes cached keys stale, says whose, and never runs ahead."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import pytest

from fieldvault.errors import KeyShredded
from fieldvault.keys.protocols import Addition, KeyStore
from fieldvault.keys.records import Change, KeySlot, KeyState
from fieldvault.testing.samples import THREADS, acme, add, fence, first_key, record, successor, together


def _touched(store: KeyStore, step: Callable[[], object]) -> list[Change]:
    """The changes that a step made, each of them one generation."""
    before = store.generation()
    step()
    changes = store.changes(before)
    assert changes is not None
    assert store.generation() - before == len(changes)
    return list(changes)


class StalenessPromises:
    """The generation and its changes."""

    def test_a_new_active_key_makes_its_slots_scope_stale(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Not the keys of the tenant's other subjects."""
        own, ann = first_key(store, acme()), first_key(store, acme("ann"))
        assert _touched(elsewhere, lambda: successor(store, own)) == [Change("acme", None)]
        assert _touched(elsewhere, lambda: successor(store, ann)) == [Change("acme", "ann")]

    def test_one_step_makes_several_scopes_stale(self, store: KeyStore) -> None:
        """Each of them is named."""
        keys = [first_key(store, slot) for slot in (acme(), acme("ann"), KeySlot("globex"))]
        batch = [Addition(record(key.slot, 2), key.key_id) for key in keys]
        touched = _touched(store, lambda: store.add_active(batch))
        assert set(touched) == {Change("acme", None), Change("acme", "ann"), Change("globex", None)}

    def test_another_state_makes_stale(self, store: KeyStore) -> None:
        """A tenant's own key may be the wrap key of its subjects, so they are stale as well."""
        own, ann = first_key(store, acme()), first_key(store, acme("ann"))
        states = KeyState.SUSPENDED, KeyState.ACTIVE, KeyState.RETIRED, KeyState.DESTROYED
        before = KeyState.ACTIVE
        for state in states:
            assert _touched(
                store,
                partial(store.transition, own.key_id, expect=before, to=state),
            ) == [Change("acme", None, whole_tenant=True)]
            assert _touched(
                store,
                partial(store.transition, ann.key_id, expect=before, to=state),
            ) == [Change("acme", "ann")]
            before = state

    def test_a_shred_makes_stale(self, store: KeyStore) -> None:
        """A subject alone, or a tenant with all its subjects; one that found nothing left to do does not."""
        first_key(store, acme("ann"))
        assert _touched(store, lambda: store.shred(fence(subject="ann"))) == [Change("acme", "ann")]
        assert _touched(store, lambda: store.shred(fence())) == [Change("acme", None, whole_tenant=True)]
        assert _touched(store, lambda: store.shred(fence())) == []

    def test_nothing_else_makes_stale(self, store: KeyStore) -> None:
        """First keys, uses, other wrapped forms, leases, and whatever was refused."""
        key = first_key(store, acme())
        store.shred(fence("fenced"))

        def refused() -> None:
            with pytest.raises(KeyShredded):
                add(store, record(KeySlot("fenced")))

        assert key.wrapped is not None
        expect = key.wrapped
        for step in (
            lambda: first_key(store, acme("ann")),
            lambda: store.reserve([key.key_id], 10, limit=100),
            lambda: store.rewrap(key.key_id, expect=expect, wrapped=b"again"),
            lambda: store.declare_lease(30),
            lambda: add(store, record(acme(), 2)),
            lambda: add(store, record(acme(), 2), record(acme())),
            lambda: store.transition(key.key_id, expect=KeyState.RETIRED, to=KeyState.SUSPENDED),
            refused,
        ):
            assert _touched(store, step) == []

    def test_changes_are_told_since_any_generation(self, store: KeyStore) -> None:
        """In the order in which they happened; none since now."""
        start, key = store.generation(), first_key(store, acme())
        for _ in range(5):
            key = successor(store, key)
        store.shred(fence())
        told = store.changes(start)
        assert told is not None
        assert len(told) == 6
        assert told[-1] == Change("acme", None, whole_tenant=True)
        assert store.changes(start + 5) == told[-1:]
        assert list(store.changes(store.generation()) or ()) == []

    def test_every_read_comes_with_the_generation(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """The one there is: a cache that is told an older one takes the store for a restored copy."""
        key = successor(store, first_key(store, acme()))
        assert elsewhere.generation() == 1
        for seen in (
            elsewhere.fetch([key.key_id]),
            elsewhere.current([acme()]),
            elsewhere.fetch([]),
            elsewhere.current([]),
        ):
            assert seen.generation == 1

    def test_changes_made_at_once_are_all_told(self, store: KeyStore, handles: Sequence[KeyStore]) -> None:
        """No two of them share a generation, and a reader that saw one number has seen all below."""
        keys = [first_key(store, acme(f"subject {number}")) for number in range(THREADS)]
        start = store.generation()
        together([partial(successor, each, key) for each, key in zip(cycle(handles), keys, strict=False)])
        told = store.changes(start)
        assert told is not None
        assert store.generation() == start + THREADS
        assert set(told) == {Change("acme", key.subject) for key in keys}
