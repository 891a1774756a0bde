"""Copying: a store taken over from another one, whole, and nothing that comes back to life on the way."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from fieldvault.errors import KeyStoreError
from fieldvault.keys.protocols import KeyStore, Portable
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.testing.samples import acme, add, fence, first_key, record, state_of, successor

_DESTROYED = KeyState.DESTROYED


def _portable(store: KeyStore) -> Portable:
    if not isinstance(store, Portable):
        pytest.skip("the store cannot be copied")
    return store


def _unfinished(store: KeyStore) -> Portable:
    portable = _portable(store)
    assert portable.begin_copy() is True
    return portable


def _key(slot: KeySlot, version: int = 1, state: KeyState = KeyState.ACTIVE) -> KeyRecord:
    made = replace(record(slot, version), state=state, uses=2**31 + version)
    return replace(made, wrapped=None) if state is _DESTROYED else made


def _history(slot: KeySlot) -> list[KeyRecord]:
    states = (_DESTROYED, KeyState.SUSPENDED, KeyState.RETIRED, KeyState.ACTIVE)
    return [_key(slot, version, state) for version, state in enumerate(states, start=1)]


class CopyPromises:
    """Being copied, and being a copy (``Portable``); skipped for a store that is not."""

    def test_every_fence_is_listed(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Of tenants and of subjects, with keys and without."""
        portable = _portable(elsewhere)
        assert list(portable.fences()) == []
        first_key(store, acme())
        set_ = [fence(), fence(subject="ann"), fence("nobody"), fence("globex", "ann")]
        for each in set_:
            store.shred(each)
        listed = list(portable.fences())
        assert len(listed) == len(set_)
        assert set(listed) == set(set_)

    def test_thousands_of_fences_are_taken_over_and_listed(self, store: KeyStore) -> None:
        """However many pages they fill."""
        there = _unfinished(store)
        set_ = [fence("globex", f"subject {number}") for number in range(2_300)]
        assert there.take_over([], set_) == 2_300
        listed = list(there.fences())
        assert len(listed) == 2_300
        assert set(listed) == set(set_)

    def test_records_are_taken_over_exactly(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Every member in every state, parents among them; a second time nothing is left to do."""
        there = _unfinished(store)
        keys = [
            *_history(acme()),
            *_history(acme(purpose=Purpose.INDEX)),
            *_history(KeySlot("globex", "ann")),
        ]
        parent = _key(acme(purpose=Purpose.WRAP))
        keys += [parent, replace(_key(acme("ann")), parent=parent.key_id, wrapped=os.urandom(8_192))]
        fenced = fence("gone", "ann")
        assert there.take_over(keys, [fenced]) == len(keys) + 1
        assert there.take_over(keys, [fenced]) == 0
        assert there.take_over([], []) == 0
        there.finish_copy(generation=7, lease=0)
        assert elsewhere.fetch([key.key_id for key in keys]).records == {key.key_id: key for key in keys}
        assert sorted(elsewhere.tenants()) == ["acme", "globex", "gone"]
        assert elsewhere.fence("gone", "ann") == fenced

    def test_thousands_of_records_are_taken_over(self, store: KeyStore) -> None:
        """In one call."""
        there = _unfinished(store)
        keys = [_key(acme(f"subject {number}")) for number in range(2_300)]
        assert there.take_over(keys, []) == 2_300
        assert sum(1 for _ in there.all_keys("acme")) == 2_300

    def test_what_changed_meanwhile_is_taken_over_again(self, store: KeyStore) -> None:
        """Rotations, also back to an older key, states, wrapped forms; uses never go back."""
        there = _unfinished(store)
        old, new = _key(acme()), _key(acme(), 2, KeyState.SUSPENDED)
        there.take_over([old, new], [])
        for states in (
            (KeyState.RETIRED, KeyState.ACTIVE),
            (KeyState.ACTIVE, KeyState.SUSPENDED),
            (KeyState.SUSPENDED, KeyState.RETIRED),
        ):
            coming = [replace(key, state=state) for key, state in zip((old, new), states, strict=True)]
            assert there.take_over(coming, []) == 2
            assert list(there.all_keys("acme")) == coming
        again = replace(old, state=KeyState.SUSPENDED, wrapped=b"again", uses=1)
        assert there.take_over([again], []) == 1
        assert there.keys("acme", None)[0] == replace(again, uses=old.uses)

    def test_a_destroyed_key_never_comes_back(self, store: KeyStore) -> None:
        """An older account of it changes nothing."""
        there, key = _unfinished(store), _key(acme())
        there.take_over([replace(key, state=_DESTROYED, wrapped=None)], [])
        assert there.take_over([key], []) == 0
        assert [(each.state, each.wrapped) for each in there.all_keys("acme")] == [(_DESTROYED, None)]

    @pytest.mark.parametrize("subject", [None, "ann"])
    @pytest.mark.parametrize("order", ["fence first", "together", "keys first"])
    def test_nothing_is_alive_behind_a_fence(self, store: KeyStore, subject: str | None, order: str) -> None:
        """Whichever comes first, the fence or the keys; other scopes go on."""
        there, set_ = _unfinished(store), fence(subject=subject)
        doomed, bystanders = _key(acme(subject)), [_key(acme("bob")), _key(KeySlot("globex", subject))]
        if order == "fence first":
            there.take_over([], [set_])
        there.take_over([doomed, *bystanders], [set_] if order == "together" else [])
        there.take_over([], [set_])
        assert [key for key in there.keys("acme", subject) if key.wrapped] == []
        there.take_over([doomed], [])
        there.finish_copy(generation=1, lease=0)
        found = store.fetch([each.key_id for each in (doomed, *bystanders)]).records
        assert found[doomed.key_id] == replace(doomed, state=_DESTROYED, wrapped=None)
        assert [found[each.key_id] for each in bystanders] == bystanders

    def test_the_first_fence_stays(self, store: KeyStore) -> None:
        """Another one over the same scope changes nothing."""
        there, first = _unfinished(store), fence()
        assert there.take_over([], [first]) == 1
        assert there.take_over([], [fence(reason="once more")]) == 0
        assert list(there.fences()) == [first]

    def test_an_unfinished_copy_serves_nobody(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Else a vault would make new keys for tenants whose keys are still to come."""
        there, key = _unfinished(store), _key(acme())
        there.take_over([key], [])
        for call in (
            elsewhere.generation,
            elsewhere.check,
            lambda: elsewhere.fetch([key.key_id]),
            lambda: elsewhere.fetch([]),
            lambda: elsewhere.current([acme("ann")]),
            lambda: add(elsewhere, record(KeySlot("globex"))),
            lambda: add(elsewhere, record(acme(), 2), key),
            lambda: elsewhere.transition(key.key_id, expect=KeyState.ACTIVE, to=_DESTROYED),
            lambda: elsewhere.shred(fence()),
            lambda: elsewhere.shred(fence("globex")),
        ):
            with pytest.raises(KeyStoreError):
                call()
        assert list(_portable(elsewhere).all_keys("acme")) == [key]
        assert list(_portable(elsewhere).fences()) == []

    def test_a_copy_that_was_interrupted_is_begun_again(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """By another process, with what is there already."""
        key = _key(acme())
        _unfinished(store).take_over([key], [])
        there = _unfinished(elsewhere)
        assert list(there.all_keys("acme")) == [key]

    def test_a_store_that_was_used_is_no_place_for_a_copy(self, store: KeyStore) -> None:
        """Not with keys, not with fences, and not once a copy is finished."""
        portable = _portable(store)
        key = first_key(store, acme())
        assert portable.begin_copy() is False
        assert state_of(store, key) is KeyState.ACTIVE
        successor(store, key)

    def test_a_store_with_a_fence_is_no_place_for_a_copy(self, store: KeyStore) -> None:
        """Though no key was ever in it."""
        portable = _portable(store)
        store.shred(fence())
        assert portable.begin_copy() is False

    def test_a_finished_copy_takes_nothing_over(self, store: KeyStore) -> None:
        """Neither does one that was never begun."""
        portable = _portable(store)
        for _ in range(2):
            with pytest.raises(KeyStoreError):
                portable.take_over([_key(acme())], [])
            with pytest.raises(KeyStoreError):
                portable.finish_copy(generation=1, lease=0)
            if portable.begin_copy():
                portable.finish_copy(generation=1, lease=0)
        assert portable.begin_copy() is False
        assert list(portable.tenants()) == []

    def test_whoever_knew_the_other_store_sees_no_past(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """The generation goes on, all that was cached is stale, and the longest lease is known."""
        there, key = _unfinished(store), _key(acme())
        there.take_over([key], [])
        there.finish_copy(generation=42, lease=12.5)
        reached = elsewhere.generation()
        assert reached >= 42
        assert elsewhere.changes(0) is elsewhere.changes(reached - 1) is None
        assert list(elsewhere.changes(reached) or ()) == []
        assert elsewhere.declare_lease(0) == 12.5
        new = successor(elsewhere, key)
        assert elsewhere.generation() == reached + 1
        assert len(elsewhere.changes(reached) or ()) == 1
        assert store.shred(fence()) == [key.key_id, new.key_id]

    def test_records_that_contradict_one_another_are_refused(self, store: KeyStore) -> None:
        """One key id is one key: of one tenant, with one parent."""
        there, key = _unfinished(store), _key(acme())
        there.take_over([key], [])
        for other in (
            replace(key, tenant="globex"),
            replace(key, subject="ann"),
            replace(key, version=2),
            replace(key, parent=os.urandom(16)),
        ):
            with pytest.raises(KeyStoreError):
                there.take_over([other], [])
        assert list(there.all_keys("acme")) == [key]
        assert list(there.all_keys("globex")) == []
