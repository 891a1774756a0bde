"""Copying: a store taken over from another one, whole, and nothing that comes back to life on the way."""
# ruff: noqa: S101 - assertions are the point

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from fieldvault.errors import KeyShredded, KeyStoreError, MovedAway, UnfinishedCopy
from fieldvault.keys.protocols import KeyStore, Portable
from fieldvault.keys.records import KeyRecord, KeySlot, KeyState, Purpose
from fieldvault.testing.samples import acme, add, fence, first_key, record, state_of, successor

_DESTROYED = KeyState.DESTROYED


def _portable(store: KeyStore) -> Portable:
    if not isinstance(store, Portable):
        pytest.skip("the store cannot be copied")
    return store


def _unfinished(store: KeyStore) -> tuple[Portable, int]:
    """The store, an unfinished copy from now on, and the token of who copies."""
    portable = _portable(store)
    token = portable.begin_copy()
    assert token is not None
    return portable, token


def _serves_nobody(store: KeyStore, key: KeyRecord, why: type[KeyStoreError]) -> None:
    for call in (
        store.generation,
        store.check,
        lambda: store.fetch([key.key_id]),
        lambda: store.fetch([]),
        lambda: store.current([acme("ann")]),
        lambda: add(store, record(KeySlot("hooli"))),
        lambda: add(store, record(acme("carl"))),
        lambda: add(store, record(acme(), 2), key),
        lambda: store.transition(key.key_id, expect=KeyState.ACTIVE, to=_DESTROYED),
        lambda: store.reserve([key.key_id], 1, limit=2**32),
        lambda: store.rewrap(key.key_id, expect=key.wrapped or b"", wrapped=b"again"),
        lambda: store.shred(fence()),
        lambda: store.shred(fence("globex")),
    ):
        with pytest.raises(KeyStoreError):
            call()
    with pytest.raises(why):
        store.check()


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
        there, token = _unfinished(store)
        set_ = [fence("globex", f"subject {number}") for number in range(2_300)]
        assert there.take_over([], set_, token=token) == 2_300
        listed = list(there.fences())
        assert len(listed) == 2_300
        assert set(listed) == set(set_)

    def test_records_are_taken_over_exactly(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Every member in every state, parents among them; a second time nothing is left to do."""
        there, token = _unfinished(store)
        keys = [
            *_history(acme()),
            *_history(acme(purpose=Purpose.INDEX)),
            *_history(KeySlot("globex", "ann")),
        ]
        parent = _key(acme(purpose=Purpose.WRAP))
        keys += [parent, replace(_key(acme("ann")), parent=parent.key_id, wrapped=os.urandom(8_192))]
        fenced = fence("gone", "ann")
        assert there.take_over(keys, [fenced], token=token) == len(keys) + 1
        assert there.take_over(keys, [fenced], token=token) == 0
        assert there.take_over([], [], token=token) == 0
        there.finish_copy(token=token, generation=7, lease=0)
        assert elsewhere.fetch([key.key_id for key in keys]).records == {key.key_id: key for key in keys}
        assert sorted(elsewhere.tenants()) == ["acme", "globex", "gone"]
        assert elsewhere.fence("gone", "ann") == fenced

    def test_thousands_of_records_are_taken_over(self, store: KeyStore) -> None:
        """In one call."""
        there, token = _unfinished(store)
        keys = [_key(acme(f"subject {number}")) for number in range(2_300)]
        assert there.take_over(keys, [], token=token) == 2_300
        assert sum(1 for _ in there.all_keys("acme")) == 2_300

    def test_what_changed_meanwhile_is_taken_over_again(self, store: KeyStore) -> None:
        """Rotations, also back to an older key, states, wrapped forms; uses never go back."""
        there, token = _unfinished(store)
        old, new = _key(acme()), _key(acme(), 2, KeyState.SUSPENDED)
        there.take_over([old, new], [], token=token)
        for states in (
            (KeyState.RETIRED, KeyState.ACTIVE),
            (KeyState.ACTIVE, KeyState.SUSPENDED),
            (KeyState.SUSPENDED, KeyState.RETIRED),
        ):
            coming = [replace(key, state=state) for key, state in zip((old, new), states, strict=True)]
            assert there.take_over(coming, [], token=token) == 2
            assert list(there.all_keys("acme")) == coming
        again = replace(old, state=KeyState.SUSPENDED, wrapped=b"again", uses=1)
        assert there.take_over([again], [], token=token) == 1
        assert there.keys("acme", None)[0] == replace(again, uses=old.uses)

    def test_a_destroyed_key_never_comes_back(self, store: KeyStore) -> None:
        """An older account of it changes nothing."""
        (there, token), key = _unfinished(store), _key(acme())
        there.take_over([replace(key, state=_DESTROYED, wrapped=None)], [], token=token)
        assert there.take_over([key], [], token=token) == 0
        assert [(each.state, each.wrapped) for each in there.all_keys("acme")] == [(_DESTROYED, None)]

    @pytest.mark.parametrize("subject", [None, "ann"])
    @pytest.mark.parametrize("order", ["fence first", "together", "keys first"])
    def test_nothing_is_alive_behind_a_fence(self, store: KeyStore, subject: str | None, order: str) -> None:
        """Whichever comes first, the fence or the keys; other scopes go on."""
        (there, token), set_ = _unfinished(store), fence(subject=subject)
        doomed, bystanders = _key(acme(subject)), [_key(acme("bob")), _key(KeySlot("globex", subject))]
        if order == "fence first":
            there.take_over([], [set_], token=token)
        there.take_over([doomed, *bystanders], [set_] if order == "together" else [], token=token)
        there.take_over([], [set_], token=token)
        assert [key for key in there.keys("acme", subject) if key.wrapped] == []
        there.take_over([doomed], [], token=token)
        there.finish_copy(token=token, generation=1, lease=0)
        found = store.fetch([each.key_id for each in (doomed, *bystanders)]).records
        assert found[doomed.key_id] == replace(doomed, state=_DESTROYED, wrapped=None)
        assert [found[each.key_id] for each in bystanders] == bystanders

    def test_the_first_fence_stays(self, store: KeyStore) -> None:
        """Another one over the same scope changes nothing."""
        (there, token), first = _unfinished(store), fence()
        assert there.take_over([], [first], token=token) == 1
        assert there.take_over([], [fence(reason="once more")], token=token) == 0
        assert list(there.fences()) == [first]

    def test_an_unfinished_copy_serves_nobody(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Else a vault would make new keys for tenants whose keys are still to come."""
        (there, token), key = _unfinished(store), _key(acme())
        there.take_over([key], [], token=token)
        _serves_nobody(elsewhere, key, UnfinishedCopy)
        assert list(_portable(elsewhere).all_keys("acme")) == [key]
        assert list(_portable(elsewhere).fences()) == []

    def test_a_store_that_was_moved_away_serves_nobody(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """Else whoever was not stopped would go on in it; moved back, it is as it was."""
        there, key = _portable(store), first_key(store, acme())
        store.shred(fence("globex"))
        generation = store.generation()
        for token in (7, 8):
            assert there.move_away(token=token) == generation
        _serves_nobody(elsewhere, key, MovedAway)
        assert there.begin_copy() is None
        assert [list(there.all_keys("acme")), len(list(there.fences()))] == [[key], 1]
        assert there.move_back(token=7) is False
        with pytest.raises(MovedAway):
            elsewhere.generation()
        assert _portable(elsewhere).move_back(token=8) is True
        assert there.move_back() is False
        assert elsewhere.generation() == generation
        assert elsewhere.fetch([key.key_id]).records == {key.key_id: key}
        successor(elsewhere, key)
        there.move_away(token=9)
        assert there.move_back() is True

    def test_an_unfinished_copy_is_not_moved_away(self, store: KeyStore) -> None:
        """Nor is one moved back that was not."""
        there, _ = _unfinished(store)
        with pytest.raises(KeyStoreError):
            there.move_away(token=1)
        assert there.move_back() is False
        with pytest.raises(UnfinishedCopy):
            there.check()

    def test_whoever_copies_last_locks_out_the_others(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """A copier that was thought dead writes nothing, and opens nothing, after another has begun."""
        (slow, old), key = _unfinished(store), _key(acme())
        slow.take_over([key], [], token=old)
        there, token = _unfinished(elsewhere)
        there.take_over([], [fence(subject="ann")], token=token)
        for call in (
            lambda: slow.take_over([_key(acme("ann"))], [], token=old),
            lambda: slow.take_over([replace(key, uses=key.uses + 1)], [fence()], token=old),
            lambda: slow.finish_copy(token=old, generation=1, lease=0),
        ):
            with pytest.raises(KeyStoreError):
                call()
        with pytest.raises(UnfinishedCopy):
            elsewhere.check()
        assert list(there.all_keys("acme")) == [key]
        there.finish_copy(token=token, generation=1, lease=0)
        with pytest.raises(KeyStoreError):
            slow.take_over([_key(acme("bob"))], [], token=old)

    @pytest.mark.parametrize("subject", [None, "ann"])
    def test_a_fence_that_came_over_holds(self, store: KeyStore, subject: str | None) -> None:
        """For keys of every purpose, those that the scope never had as well."""
        there, token = _unfinished(store)
        there.take_over([_key(acme(subject))], [], token=token)
        for _ in range(2):
            there.take_over([], [fence(subject=subject)], token=token)
        there.take_over([_key(acme(subject), 2)], [], token=token)
        there.finish_copy(token=token, generation=1, lease=0)
        for purpose in Purpose:
            with pytest.raises(KeyShredded):
                add(store, record(KeySlot("acme", subject, purpose), 3))

    def test_a_copy_is_given_up(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """It was begun by mistake: an empty store again, which serves, and may be a copy of another one."""
        (there, token), keys = _unfinished(store), [_key(acme()), _key(acme("ann"))]
        there.take_over(keys, [fence("globex"), fence(subject="bob")], token=token)
        assert _portable(elsewhere).give_up_copy() is True
        assert there.give_up_copy() is False
        assert [list(there.tenants()), list(there.fences()), list(there.all_keys("acme"))] == [[], [], []]
        assert store.generation() == 0
        assert store.fetch([key.key_id for key in keys]).records == {}
        with pytest.raises(KeyStoreError):
            there.take_over(keys, [], token=token)
        again, token = _unfinished(elsewhere)
        assert again.take_over(keys, [], token=token) == 2
        assert again.give_up_copy() is True
        for slot in (acme(), acme("bob"), KeySlot("globex")):
            first_key(store, slot)
        assert there.give_up_copy() is False

    def test_a_copy_that_was_interrupted_is_begun_again(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """By another process, with what is there already."""
        key = _key(acme())
        there, token = _unfinished(store)
        there.take_over([key], [], token=token)
        there, token = _unfinished(elsewhere)
        assert list(there.all_keys("acme")) == [key]

    def test_a_store_that_was_used_is_no_place_for_a_copy(self, store: KeyStore) -> None:
        """Not with keys, not with fences, and not once a copy is finished."""
        portable = _portable(store)
        key = first_key(store, acme())
        assert portable.begin_copy() is None
        assert state_of(store, key) is KeyState.ACTIVE
        successor(store, key)

    def test_a_store_with_a_fence_is_no_place_for_a_copy(self, store: KeyStore) -> None:
        """Though no key was ever in it."""
        portable = _portable(store)
        store.shred(fence())
        assert portable.begin_copy() is None

    def test_a_finished_copy_takes_nothing_over(self, store: KeyStore) -> None:
        """Neither does one that was never begun."""
        portable, token = _portable(store), 1
        for _ in range(2):
            with pytest.raises(KeyStoreError):
                portable.take_over([_key(acme())], [], token=token)
            with pytest.raises(KeyStoreError):
                portable.finish_copy(token=token, generation=1, lease=0)
            begun = portable.begin_copy()
            if begun is not None:
                token = begun
                portable.finish_copy(token=token, generation=1, lease=0)
        assert portable.begin_copy() is None
        assert list(portable.tenants()) == []

    def test_whoever_knew_the_other_store_sees_no_past(self, store: KeyStore, elsewhere: KeyStore) -> None:
        """The generation goes on, all that was cached is stale, and the longest lease is known."""
        (there, token), key = _unfinished(store), _key(acme())
        there.take_over([key], [], token=token)
        there.finish_copy(token=token, generation=42, lease=12.5)
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
        """One key id is one key, of one tenant, with one parent; of a slot one is active, one a version."""
        (there, token), key = _unfinished(store), _key(acme())
        there.take_over([key], [], token=token)
        for other in (
            replace(key, tenant="globex"),
            replace(key, subject="ann"),
            replace(key, version=2),
            replace(key, parent=os.urandom(16)),
        ):
            with pytest.raises(KeyStoreError):
                there.take_over([other], [], token=token)
        for slot in ([_key(acme("ann")), _key(acme("ann"), 2)], [_key(acme("ann")) for _ in range(2)]):
            with pytest.raises(KeyStoreError):
                there.take_over(slot, [], token=token)
        assert list(there.all_keys("acme")) == [key]
        assert list(there.all_keys("globex")) == []
